"""UTD-MHAD, cross-subject (subjects 1, 3, 5, 7 train), with FAM on mosaics of depth frames that stand in for RGB.

    python -m data_prep.utd_mhad --source=utd_mhad.tar.xz --out=data/utd_mhad
    python -m mmcl_jax.main --config=configs/utd_mhad.py:joint --workdir=workdir/utd_mhad_joint

Streams: joint, bone, joint_motion, bone_motion. FRM is off: no VQA features exist for this dataset. The skeleton-only
baseline: `--config.loss.contrastive_weight=0`. A short run for a CPU: `configs/utd_mhad.py:joint,short` (narrow model,
window 32, 20 epochs). The image encoder is the small one; `--config.model.image_encoder=inception_v3` is the paper's.
No accuracy is published for this protocol with CTR-GCN. The short run takes a few minutes on two cores: 75.6 % with
FAM, 79.2 % without (means of three seeds, deviations 2.8 and 7.6). At full width, 30 epochs in batches of 64 give
91.9 % without FAM and at most 91.7 % with it; the 65 epochs of this file we have not run. See docs/results.md.
"""

from mmcl_jax import config as common


def get_config(arguments: str = "joint"):
    stream, _, schedule = arguments.partition(",")
    if schedule not in ("", "short"):
        raise ValueError(f"configs/utd_mhad.py:{arguments}: the schedule {schedule!r} is not 'short'")
    config = common.get_config()
    config.data.records = "data/utd_mhad"
    config.data.stream = stream
    config.data.centre = True
    config.data.repeats = 5
    config.model.image_encoder = "small_cnn"
    config.loss.refinement_weight = 0.0
    config.batch_size = 16
    config.num_epochs = 65
    config.drop_epochs = (50,)
    if schedule == "short":
        config.model.base_channels = 16
        config.data.window = 32
        config.data.repeats = 1
        config.learning_rate = 0.05
        config.num_epochs, config.warmup_epochs, config.drop_epochs = 20, 2, (12, 17)
    return config.lock()
