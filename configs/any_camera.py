"""UTD-MHAD and NW-UCLA seen by random cameras: the model that works on poses of anyone's video."""

from mmcl_jax import config as common


def get_config(arguments: str = "joint_bone"):
    config = common.without_images_and_text(common.get_config())
    config.data.records = "data/any_camera"
    config.data.stream = arguments
    config.data.sampling = "paced"
    config.data.window, config.data.frame_rate = 36, 12.0  # three seconds
    config.data.test_crop = 1.0
    config.data.camera.views = "random"
    config.model.base_channels = 32
    config.batch_size = 32
    config.learning_rate = 0.05
    config.weight_decay = 2e-4
    config.num_epochs, config.warmup_epochs, config.drop_epochs = 24, 2, (16, 21)
    return config.lock()
