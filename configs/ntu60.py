"""NTU RGB+D 60, cross-subject (xsub) or cross-view (xview: cameras 2 and 3 train), MMCL with CTR-GCN, 110 epochs.

    python -m data_prep.ntu --skeletons=nturgbd_skeletons --videos=nturgbd_rgb --out=data/ntu
    python -m data_prep.text_features --records=data/ntu
    python -m mmcl_jax.main --config=configs/ntu60.py:xsub,joint --workdir=workdir/ntu60_xsub_joint

Streams: joint, bone, joint_motion, bone_motion. Of records that hold NTU RGB+D 120, the first 60 classes take part.
Without images and text (only CTR-GCN): `configs/ntu60.py:xsub,joint,skeleton_only`. Without one of the two:
`--config.loss.contrastive_weight=0` (images), `--config.loss.refinement_weight=0` (text). The published MMCL starts its
image encoder from torchvision's weights: `--config.model.image_encoder_weights=inception_v3.pth`.

Published, best epoch on the test set, CTR-GCN with four streams together: 92.4 % xsub, 96.8 % xview; MMCL (an
ensemble too) 93.5 % and 97.4 %. We have run none of these: accuracy and time not measured.
"""

from mmcl_jax import config as common


def get_config(arguments: str = "xsub,joint"):
    protocol, stream, variant = common.split_arguments(arguments, ("xsub", "joint", ""))
    if protocol not in ("xsub", "xview"):
        raise ValueError(f"configs/ntu60.py:{arguments}: the protocol {protocol!r} is not 'xsub' or 'xview'")
    config = common.get_ntu_config(f"ntu60_{protocol}", stream, variant)
    config.data.absent_body = "zeros"
    return config.lock()
