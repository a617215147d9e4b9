"""Which values of a config are refused, in words that name the key and a remedy, before anything starts."""

import importlib.util
import inspect
from collections.abc import Collection
from typing import Any

import jax.numpy as jnp

from mmcl_jax.config import Config
from mmcl_jax.data.input_pipeline import STORAGE
from mmcl_jax.models import BACKBONES, graphs
from mmcl_jax.models.losses import CONTRASTIVE
from mmcl_jax.models.mmcl import REFINEMENT
from mmcl_jax.runtime.errors import ConfigError

TEXT_SCALING = ("none", "standardise")
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("step", "cosine")
CLASS_WEIGHTS = ("none", "balanced")
FREEZE = ("none", "backbone")
# The type of the features in training, as the models' field `dtype` takes it.
COMPUTE_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


def check_known(name: str, value: str, known: Collection[str]) -> None:
    """Raises ConfigError, which lists the known values, if `value` of the key `name` is none of them."""
    if value not in known:
        raise ConfigError(f"{name} {value!r} is not one of {', '.join(known)}")


def check_skeleton_values(config: Config) -> None:
    """Values that both training and evaluation need. Raises: ConfigError."""
    data, model = config.data, config.model
    check_known("model.backbone", model.backbone, BACKBONES)
    if model.base_channels < 4 or model.base_channels % 4:
        raise ConfigError(f"model.base_channels {model.base_channels} is not a positive multiple of 4")
    check_known("model.graph", model.graph, graphs.GRAPHS)
    if model.graph != "natural" and model.backbone != "ctrgcn":
        raise ConfigError(f"model.graph {model.graph!r} is only for ctrgcn; {model.backbone} has its own")
    if data.workers < 0:
        raise ConfigError(f"data.workers {data.workers} is negative; with 0 the main process reads")


def check_training_values(config: Config) -> None:
    """Values that would fail only after the workdir was claimed, or in the middle of a run. Raises: ConfigError."""
    data, loss = config.data, config.loss
    for name, value in (
        ("num_epochs", config.num_epochs),
        ("eval_every_epochs", config.eval_every_epochs),
        ("log_every_steps", config.log_every_steps),
        ("data.repeats", data.repeats),
        ("data.window", data.window),
        ("data.threads", data.threads),
        ("model.refinement_terms", config.model.refinement_terms),
        ("data.host_memory_mb", data.host_memory_mb),
        ("steps_per_dispatch", config.steps_per_dispatch),
    ):
        if value < 1:
            raise ConfigError(f"{name} {value} is not a positive number")
    if config.seed < 0:
        raise ConfigError(f"seed {config.seed} is negative")
    if config.checkpoint_every_steps < 0:
        raise ConfigError(f"checkpoint_every_steps {config.checkpoint_every_steps} is negative; 0: after epochs only")
    for name, value in (
        ("learning_rate", config.learning_rate),
        ("warmup_epochs", config.warmup_epochs),
        ("drop_factor", config.drop_factor),
        ("weight_decay", config.weight_decay),
        ("data.prefetch", data.prefetch),
        ("data.frame_rate", data.frame_rate),
        ("gradient_clip", config.gradient_clip),
        ("loss.mixup", loss.mixup),
        ("early_stopping_epochs", config.early_stopping_epochs),
        ("data.train_fraction_seed", data.train_fraction_seed),
        *(("drop_epochs", epoch) for epoch in config.drop_epochs),
    ):
        if value < 0:
            raise ConfigError(f"{name} {value} is negative; it is 0 or more")
    for name, value, known in (
        ("optimizer", config.optimizer, OPTIMIZERS),
        ("schedule", config.schedule, SCHEDULES),
        ("freeze", config.freeze, FREEZE),
        ("loss.class_weights", loss.class_weights, CLASS_WEIGHTS),
    ):
        check_known(name, value, known)
    for name, value in (("ema_decay", config.ema_decay), ("loss.label_smoothing", loss.label_smoothing)):
        if not 0 <= value < 1:
            raise ConfigError(f"{name} {value} is not within 0 and 1; 0 switches it off")
    if not 0 < data.train_fraction <= 1:
        raise ConfigError(f"data.train_fraction {data.train_fraction} is not a fraction, more than 0 and at most 1")
    if config.schedule == "cosine" and config.warmup_epochs >= config.num_epochs:
        raise ConfigError(
            f"warmup_epochs {config.warmup_epochs} leaves nothing of num_epochs {config.num_epochs} for the cosine"
        )
    if config.backbone_learning_rate_scale <= 0:
        raise ConfigError(
            f"backbone_learning_rate_scale {config.backbone_learning_rate_scale} is not positive; to keep the backbone "
            "as it is, use --config.freeze=backbone"
        )
    if config.freeze != "none" and not config.init_from:
        raise ConfigError("freeze 'backbone' would keep random weights; name trained ones with --config.init_from")
    if config.freeze != "none" and config.backbone_learning_rate_scale != 1:
        raise ConfigError("freeze 'backbone' leaves nothing for backbone_learning_rate_scale; set one of them")
    if loss.mixup and (loss.contrastive_weight or loss.refinement_weight):
        raise ConfigError(
            "loss.mixup mixes clips, but neither their images nor their text; switch FAM and FRM off with "
            "--config.loss.contrastive_weight=0 --config.loss.refinement_weight=0"
        )
    if config.early_stopping_epochs and not config.keep_best:
        raise ConfigError(
            "early_stopping_epochs would leave the weights of its last epoch, which is not the best; add "
            "--config.keep_best=True"
        )
    if config.keep_best and not data.validation_subjects:
        raise ConfigError(
            "keep_best needs a validation split, because the test split must not choose; hold training subjects out "
            "with --config.data.validation_subjects=(1,2)"
        )
    if config.wandb_project and importlib.util.find_spec("wandb") is None:
        raise ConfigError(f"wandb_project {config.wandb_project!r}: wandb is not installed; pip install wandb")
    if not 0 <= config.momentum < 1:
        raise ConfigError(f"momentum {config.momentum} is not within 0 and 1; 1 would never forget a gradient")
    for name, value in (
        ("loss.contrastive_weight", loss.contrastive_weight),
        ("loss.refinement_weight", loss.refinement_weight),
    ):
        if value < 0:
            raise ConfigError(f"{name} {value} is negative; 0 switches the module off")
    if loss.temperature <= 0:
        raise ConfigError(f"loss.temperature {loss.temperature} is not positive")
    check_known("loss.contrastive", loss.contrastive, CONTRASTIVE)
    check_known("data.text_scaling", data.text_scaling, TEXT_SCALING)
    check_known("data.storage", data.storage, STORAGE)
    check_known("model.refinement_matrices", config.model.refinement_matrices, REFINEMENT)
    check_known("compute_dtype", config.compute_dtype, COMPUTE_DTYPES)


def check_loss(config: Config, backbone: Any) -> None:
    """Raises ConfigError if the backbone's own loss cannot do what the config asks of it."""
    taken = inspect.signature(backbone.classification_loss).parameters
    for asked, keyword, key, own in (
        (config.loss.label_smoothing != 0, "smoothing", "label_smoothing", "model.label_smoothing"),
        (config.loss.class_weights != "none", "weights", "class_weights", ""),
    ):
        if asked and keyword not in taken:
            remedy = (
                f"; it has a key of its own, {own}" if own and hasattr(backbone, own.removeprefix("model.")) else ""
            )
            raise ConfigError(
                f"loss.{key}: the classification_loss of {config.model.backbone} takes no {keyword!r}{remedy}"
            )


def check_dispatch(config: Config, epoch_steps: int) -> None:
    """A dispatch ends where something is logged or saved: a longer one would never run. Raises: ConfigError."""
    for name, steps in (
        ("the steps of an epoch", epoch_steps),
        ("log_every_steps", config.log_every_steps),
        ("checkpoint_every_steps", config.checkpoint_every_steps),
    ):
        if 0 < steps < config.steps_per_dispatch:
            raise ConfigError(
                f"steps_per_dispatch {config.steps_per_dispatch} is more than {name}, {steps}, where a dispatch ends; "
                f"give it {steps} or a divisor of that"
            )


def check_groups(config: Config) -> None:
    """Groups of clips must divide the batch. Raises: ConfigError."""
    for name, size in (
        ("model.batch_norm_group_size", config.model.batch_norm_group_size),
        ("loss.contrastive_group_size", config.loss.contrastive_group_size),
    ):
        if size is not None and (size < 1 or config.batch_size % size):
            raise ConfigError(f"{name} {size} does not divide batch_size {config.batch_size}; choose one that does")
