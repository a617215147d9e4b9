"""The demo: MMCL with FAM and FRM on the synthetic records, a narrow model that two CPU cores train in minutes.

    python -m data_prep.synthetic --out=data/synthetic
    python -m mmcl_jax.main --config=configs/demo.py --workdir=workdir/demo

`make demo` does both, and its own set-up. Without FAM and FRM: `configs/demo.py:joint,skeleton_only`. Times and
accuracies that we measured are in docs/results.md.
"""

from mmcl_jax import config as common


def get_config(arguments: str = "joint"):
    stream, _, variant = arguments.partition(",")
    if variant not in ("", "skeleton_only"):
        raise ValueError(f"configs/demo.py:{arguments}: the variant {variant!r} is not 'skeleton_only'")
    config = common.get_config()
    config.data.records = "data/synthetic"
    config.data.stream = stream
    config.data.text = "stand_in/holding"
    config.data.text_scaling = "standardise"
    config.data.window = 32
    config.data.crop_interval = (0.8, 1.0)  # the paper's half clips take far longer to learn from
    config.model.base_channels = 16
    config.model.image_encoder = "small_cnn"
    config.batch_size = 16
    config.num_epochs = 16
    config.warmup_epochs = 2
    config.drop_epochs = (10, 14)
    config.eval_every_epochs = 2
    if variant == "skeleton_only":
        config = common.without_images_and_text(config)
    return config.lock()
