"""UTD-MHAD and NW-UCLA seen by random cameras: the model in the box, for poses of anyone's video.

    python -m data_prep.utd_mhad --source=utd_mhad.tar.xz --no_images --out=data/utd_mhad
    python -m data_prep.nw_ucla --source=nw_ucla.tar.xz --out=data/nw_ucla
    python -m data_prep.merge --records data/nw_ucla data/utd_mhad --out=data/any_camera ...
    python -m mmcl_jax.main --config=configs/any_camera.py:joint_bone,first --workdir=workdir/any_camera_first
    python -m mmcl_jax.main --config=configs/any_camera.py:joint_bone --workdir=workdir/any_camera \
        --config.init_from=workdir/any_camera_first
    python -m experiments.calibrate workdir/any_camera

docs/any_video.md has the whole merge command and what the model reaches: 86.2 % on held-out subjects from the sensor's
side, 91.4 % on real clips of four common actions and few others. Each training takes 13 to 28 minutes on two cores that
others share. Streams: joint_bone, joint, bone, joint_motion, bone_motion.
"""

from mmcl_jax import config as common


def get_config(arguments: str = "joint_bone"):
    stream, _, stage = arguments.partition(",")
    if stage not in ("", "first"):
        raise ValueError(f"configs/any_camera.py:{arguments}: the stage {stage!r} is not 'first'")
    config = common.without_images_and_text(common.get_config())
    config.data.records = "data/any_camera"
    config.data.stream = stream
    config.data.sampling = "paced"
    config.data.window, config.data.frame_rate = 36, 12.0  # three seconds
    config.data.test_crop = 1.0
    config.data.camera.views = "random"
    config.model.base_channels = 32
    config.batch_size = 32
    config.weight_decay = 2e-4
    config.drop_epochs = ()
    if stage == "first":
        config.learning_rate, config.num_epochs, config.warmup_epochs = 0.06, 7, 1
    else:
        config.schedule = "cosine"
        config.learning_rate, config.num_epochs, config.warmup_epochs = 0.05, 6, 0
    return config.lock()
