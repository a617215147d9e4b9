"""Northwestern-UCLA, cross-view (views 1 and 2 train, 3 tests), CTR-GCN's recipe, skeleton only.

    python -m data_prep.nw_ucla --source=nw_ucla.tar.xz --out=data/nw_ucla
    python -m mmcl_jax.main --config=configs/nw_ucla.py:joint --workdir=workdir/nw_ucla_joint

Streams: joint, bone, joint_motion, bone_motion. With 65 epochs joint reaches 93.3 % at its last epoch (one seed, 10
minutes of an H100 that three other runs share; published best epoch: 94.6 %), the four streams together 94.4 %.
`configs/nw_ucla.py:joint,short` is 9 epochs (drops after 6 and 8), for a CPU: about 35 minutes on two cores, 91.6 and
89.0 % at the last epoch in two runs of joint (the published code: 89.2 %), and 94.8 % of all four streams together. See
docs/results.md.
"""

from mmcl_jax import config as common


def get_config(arguments: str = "joint"):
    stream, _, schedule = arguments.partition(",")
    if schedule not in ("", "short"):
        raise ValueError(f"configs/nw_ucla.py:{arguments}: the schedule {schedule!r} is not 'short'")
    config = common.without_images_and_text(common.get_config())
    config.data.records = "data/nw_ucla"
    config.data.protocol = "xview"
    config.data.stream = stream
    config.data.sampling = "view_normalised"
    config.data.window = 52
    config.data.rotation = 60.0
    config.data.repeats = 5
    config.batch_size = 16
    config.weight_decay = 1e-4
    config.num_epochs = 65
    config.drop_epochs = (50,)
    if schedule == "short":
        config.num_epochs, config.warmup_epochs, config.drop_epochs = 9, 2, (6, 8)
    return config.lock()
