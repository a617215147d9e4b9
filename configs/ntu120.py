"""NTU RGB+D 120, cross-subject (xsub) or cross-setup (xset: even setups train), MMCL with CTR-GCN, 110 epochs.

    python -m data_prep.ntu --skeletons=nturgbd_skeletons --videos=nturgbd_rgb --out=data/ntu
    python -m data_prep.text_features --records=data/ntu
    python -m mmcl_jax.main --config=configs/ntu120.py:xsub,joint --workdir=workdir/ntu120_xsub_joint

`--config=configs/ntu120.py` means xsub, joint. Streams: joint, bone, joint_motion, bone_motion. Without images
and text (only CTR-GCN): `configs/ntu120.py:xsub,joint,skeleton_only`. Without one of the two:
`--config.loss.contrastive_weight=0` (images), `--config.loss.refinement_weight=0` (text). The published MMCL starts its
image encoder from torchvision's weights: `--config.model.image_encoder_weights=inception_v3.pth`.

Published, xsub, best epoch on the test set: CTR-GCN 85.01 % on joint, 86.34 bone, 81.23 joint motion, 81.66 bone
motion; MMCL 85.79, 87.32, 83.19, 82.92. We have run none of these: accuracy and time not measured.
"""

from mmcl_jax import config as common


def get_config(arguments: str = "xsub,joint"):
    protocol, stream, variant = common.split_arguments(arguments, ("xsub", "joint", ""))
    if protocol not in ("xsub", "xset"):
        raise ValueError(f"configs/ntu120.py:{arguments}: the protocol {protocol!r} is not 'xsub' or 'xset'")
    config = common.get_ntu_config(f"ntu120_{protocol}", stream, variant)
    config.data.absent_body = "copy"
    return config.lock()
