"""UTD-MHAD and NW-UCLA seen by random cameras: the model in the box, for poses of anyone's video.

    python -m data_prep.utd_mhad --source=utd_mhad.tar.xz --no_images --out=data/utd_mhad
    python -m data_prep.nw_ucla --source=nw_ucla.tar.xz --out=data/nw_ucla
    python -m data_prep.merge --records data/nw_ucla data/utd_mhad --out=data/any_camera ...
    python -m mmcl_jax.main --config=configs/any_camera.py --workdir=workdir/any_camera
    python -m experiments.calibrate workdir/any_camera

docs/any_video.md has the whole merge command and what the model reaches. Training takes 15 to 35 minutes of two cores
that others share. Streams: joint_bone, joint, bone, joint_motion, bone_motion.
"""

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
    config.learning_rate = 0.06
    config.weight_decay = 2e-4
    config.num_epochs, config.warmup_epochs, config.drop_epochs = 15, 1, (10, 14)
    return config.lock()
