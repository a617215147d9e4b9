"""SYSU 3D HOI (SYSU-Action), cross-subject: half of the 40 subjects train, in one of 30 divisions; skeleton only.

    python -m data_prep.sysu --source=SYSU3DAction --out=data/sysu
    python -m mmcl_jax.main --config=configs/sysu.py:xsub_1,joint --workdir=workdir/sysu_xsub_1_joint

Protocols: `xsub_1` to `xsub_30`, `same_subject_1` to `same_subject_30` (half of each action's clips). The published
figures are means over the 30 divisions of the authors, which are other ones. Streams: joint, bone,
joint_motion, bone_motion. We had no copy of this dataset: neither accuracy nor time was measured.
"""

from mmcl_jax import config as common


def get_config(arguments: str = "xsub_1,joint"):
    protocol, stream = common.split_arguments(arguments, ("xsub_1", "joint"))
    config = common.without_images_and_text(common.get_config())
    config.data.records = "data/sysu"
    config.data.protocol = protocol
    config.data.stream = stream
    config.data.centre = True
    config.data.repeats = 5
    config.batch_size = 16
    config.num_epochs = 65
    config.drop_epochs = (50,)
    return config.lock()
