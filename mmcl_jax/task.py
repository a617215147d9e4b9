"""What a config means: records, model, transforms and optimizer of a run, built and checked before anything starts."""

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmcl_jax import config_checks, optim
from mmcl_jax.config import AnyConfig, Config
from mmcl_jax.data.input_pipeline import steps_per_epoch
from mmcl_jax.data.records import Records, RecordsError, RecordsView
from mmcl_jax.data.transforms import Transform, make_transform, output_channels
from mmcl_jax.description import transform_options
from mmcl_jax.models import BACKBONES, classifier_of
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS
from mmcl_jax.models.mmcl import BACKBONE, MMCL, FeatureAlignment, FeatureRefinement
from mmcl_jax.runtime import sharding
from mmcl_jax.runtime.errors import ConfigError
from mmcl_jax.steps import LossOptions, ModelInputs, Recipe


@dataclasses.dataclass(frozen=True)
class SkeletonTask:
    """All that evaluation needs: the skeleton model, in float32, and how clips reach it."""

    config: Config
    records: Any  # Records, or what has their interface
    backbone: Any  # a Linen module with the contract of `mmcl_jax.models`
    transform: Transform
    num_classes: int

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """`[M, T, V, C]` of the clips that the model sees."""
        records, data = self.records, self.config.data
        coordinates = records.info.num_coordinates
        channels = output_channels(data.stream, data.camera.views, records.num_channels, coordinates)
        return records.max_bodies, data.window, records.num_joints, channels

    def init(self, key: jax.Array) -> dict:
        """Initial variables of the backbone (their shapes, under `jax.eval_shape`)."""
        clip = jnp.zeros((1, *self.clip_shape))
        return {"batch_stats": {}, **self.backbone.init(key, clip, train=False)}  # a backbone may keep no statistics


def build_skeleton_task(
    config: AnyConfig, *, train: bool, records: Records | RecordsView | None = None
) -> SkeletonTask:
    """Opens the records and builds the skeleton model, with the transform for training or for evaluation.

    Args:
      config: the run's.
      train: whether the transform augments.
      records: read instead of those that the config names.

    Raises: RecordsError, ConfigError, LayoutError if records and config do not fit.
    """
    config = Config.of(config)
    data, model = config.data, config.model
    if records is None:
        records = open_records(config)
    config_checks.check_skeleton_values(config)
    layout = records.info.skeleton_layout
    layout.center_of_mass(model.center_of_mass)  # raises if the layout has no such joint
    num_classes = len(records.class_names(data.protocol))
    coordinates = records.info.num_coordinates
    return SkeletonTask(
        config=config,
        records=records,
        backbone=BACKBONES[model.backbone](
            num_classes, layout, coordinates if data.camera.views == "none" else 2, model
        ),
        transform=make_transform(transform_options(config), layout, records.max_frames, train, coordinates=coordinates),
        num_classes=num_classes,
    )


def open_records(config: Config) -> Records:
    """The records that the config names. Raises: RecordsError."""
    if not config.data.records:
        raise RecordsError("--config.data.records is empty; name the folder that data_prep wrote")
    return Records(config.data.records)


@dataclasses.dataclass(frozen=True)
class TrainingTask:
    """All that training needs.

    Attributes:
      config: what the rest was built from.
      skeleton: records, backbone and training transform.
      recipe: what a training step is made of: MMCL around the backbone, which computes in the config's
        `compute_dtype`, the transform, the optimizer, the loss.
      schedule: the learning rate of each step.
      rows: int64 `[R]`, the training clips' rows in the records.
      steps_per_epoch: whole batches.
      text_set: text set for FRM; None without FRM.
      image_size: side of FAM's images, pixels; None without FAM.
    """

    config: Config
    skeleton: SkeletonTask
    recipe: Recipe
    schedule: optim.Schedule
    rows: np.ndarray
    steps_per_epoch: int
    text_set: str | None
    image_size: int | None

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.config.num_epochs * self.steps_per_epoch

    def input_shapes(self) -> ModelInputs:
        """Shapes of what the model sees of one clip in training."""
        image = text = None
        if self.image_size is not None:
            image = (1, self.image_size, self.image_size, 3)
            if self.recipe.model.image_encoder is None:
                image = (1, *image_feature_shape(self.config, self.image_size))
        if self.text_set is not None:
            text = (1, self.skeleton.records.text_width(self.text_set))
        shapes = ((1, *self.skeleton.clip_shape), image, text)
        clip, image, text = (shape and jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
        return clip, image, text


def build_training_task(config: AnyConfig) -> TrainingTask:
    """Builds a run and checks that records and config fit. Raises: RecordsError, ConfigError, LayoutError."""
    config = Config.of(config)
    config_checks.check_training_values(config)
    sharding.check_batch_size("batch_size", config.batch_size)
    skeleton = build_skeleton_task(config, train=True)
    records = skeleton.records
    config_checks.check_loss(config, skeleton.backbone)
    rows = training_rows(config, records)
    epoch_steps = steps_per_epoch(len(rows), config.data.repeats, config.batch_size)
    config_checks.check_dispatch(config, epoch_steps)
    config_checks.check_groups(config)
    schedule = learning_rates(config, epoch_steps)
    text_set = _training_text_set(config, records, rows) if config.loss.refinement_weight > 0 else None
    image_size = _image_size(config, records, rows) if config.loss.contrastive_weight > 0 else None
    return TrainingTask(
        config=config,
        skeleton=skeleton,
        recipe=Recipe(
            model=_mmcl(config, skeleton, with_image=image_size is not None, with_text=text_set is not None),
            transform=skeleton.transform,
            optimizer=_optimizer(config, schedule),
            loss=loss_options(config, class_weights(config, records, rows, skeleton.num_classes)),
            text_statistics=text_statistics(records, rows, text_set)
            if text_set is not None and config.data.text_scaling == "standardise"
            else None,
            image_statistics=IMAGE_ENCODERS[config.model.image_encoder].statistics(config.model.image_encoder_weights)
            if image_size is not None
            else None,
            ema_decay=config.ema_decay,
            finds_best=config.keep_best,
        ),
        schedule=schedule,
        rows=rows,
        steps_per_epoch=epoch_steps,
        text_set=text_set,
        image_size=image_size,
    )


def training_rows(config: Config, records: Records) -> np.ndarray:
    """int64 `[R]`: the rows of the training clips, of which `data.train_fraction` may take a part.

    Raises: RecordsError.
    """
    data = config.data
    rows = records.select(data.protocol, "train", data.validation_subjects)
    if data.train_fraction == 1:
        return rows
    chosen = stratified_part(records.index["label"][rows], data.train_fraction, data.train_fraction_seed)
    return rows[chosen]


def stratified_part(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Places, int64 and ascending, of the same fraction of the clips of each class, rounded, but at least one clip.

    They depend on `seed` and the labels `[R]` only. A larger fraction has all places of a smaller one.
    """
    drawn = np.random.default_rng(np.random.SeedSequence([seed])).permutation(len(labels))
    parts = []
    for label in np.unique(labels):
        members = drawn[labels[drawn] == label]
        parts.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(parts))


def class_weights(config: Config, records: Records, rows: np.ndarray, num_classes: int) -> tuple[float, ...] | None:
    """What a clip of each class counts in the loss: in inverse proportion to the class's training clips `rows`.

    The mean over the training clips is 1. A class without clips has 0. None: all clips count the same.
    """
    if config.loss.class_weights == "none":
        return None
    counts = np.bincount(records.index["label"][rows], minlength=num_classes)
    weights = len(rows) / np.maximum(counts, 1) / (counts > 0).sum()
    return tuple(float(weight) for weight in np.where(counts > 0, weights, 0.0))


def learning_rates(config: Config, epoch_steps: int) -> optim.Schedule:
    """The learning rate of each step, for epochs of `epoch_steps` steps."""
    if config.schedule == "cosine":
        return optim.cosine_schedule(config.learning_rate, config.warmup_epochs, config.num_epochs, epoch_steps)
    return optim.stepwise_schedule(
        config.learning_rate, config.warmup_epochs, config.drop_epochs, config.drop_factor, epoch_steps
    )


def _optimizer(config: Config, schedule: optim.Schedule) -> optax.GradientTransformation:
    if config.optimizer == "adamw":
        optimizer = optim.adamw(schedule, config.weight_decay)
    else:
        optimizer = optim.sgd(schedule, config.momentum, config.weight_decay)
    if config.gradient_clip:
        optimizer = optax.chain(optax.clip_by_global_norm(config.gradient_clip), optimizer)
    scale = 0.0 if config.freeze == "backbone" else config.backbone_learning_rate_scale
    return optimizer if scale == 1 else optim.scaled_part(optimizer, scale, _makes_features)


def _makes_features(path: tuple[str, ...], params: Mapping) -> bool:
    """Whether a parameter of `MMCL` belongs to the backbone without its classifier."""
    return path[0] == BACKBONE and path[1] != classifier_of(params[BACKBONE])


def loss_options(config: Config, class_weights: tuple[float, ...] | None = None) -> LossOptions:
    """The terms of the loss that the config names, with what a clip of each class counts."""
    return LossOptions(**{**dataclasses.asdict(config.loss), "class_weights": class_weights})


def text_statistics(records: Records, rows: np.ndarray, text_set: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation, float32 `[D]` each, of a text set over the clips `rows`; a constant feature's deviation is 1.

    They depend only on records and protocol, so that later users of a trained FRM get the same values.
    """
    features = np.stack([records.text(int(row), text_set) for row in rows]).astype(np.float64)
    deviation = features.std(axis=0)
    return features.mean(axis=0).astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)


def _mmcl(config: Config, skeleton: SkeletonTask, *, with_image: bool, with_text: bool) -> MMCL:
    model = config.model
    trains_encoder = with_image and not model.image_encoder_frozen
    return MMCL(
        backbone=_computing(skeleton.backbone, config),
        image_encoder=_computing(image_encoder(config), config) if trains_encoder else None,
        alignment=FeatureAlignment(skeleton.backbone.feature_width) if with_image else None,
        refinement=FeatureRefinement(model.refinement_terms, matrices=model.refinement_matrices) if with_text else None,
        frozen=config.freeze == "backbone",
    )


def _computing(module: nn.Module, config: Config) -> nn.Module:
    """A backbone or an image encoder whose features have the config's `compute_dtype`. Raises: ConfigError."""
    dtype = config_checks.COMPUTE_DTYPES[config.compute_dtype]
    if dtype is None:
        return module
    if not hasattr(module, "dtype"):
        raise ConfigError(
            f"compute_dtype {config.compute_dtype!r}: {type(module).__name__} has no field `dtype` for it"
        )
    return module.clone(dtype=dtype)


def image_encoder(config: Config) -> nn.Module:
    """The image encoder that the config names. Raises: ConfigError."""
    name = config.model.image_encoder
    config_checks.check_known("model.image_encoder", name, IMAGE_ENCODERS)
    return IMAGE_ENCODERS[name].module(group_size=config.model.batch_norm_group_size)


def _image_size(config: Config, records: Records, rows: np.ndarray) -> int:
    image_encoder(config)
    _require_all(records, rows, "images", "loss.contrastive_weight")
    return IMAGE_ENCODERS[config.model.image_encoder].image_size


def find_text_set(records: Records, wanted: str) -> str:
    """The one text set of the records whose name is `wanted` or begins with it. Raises: RecordsError."""
    name = wanted.strip("/")
    found = [text_set for text_set in records.text_sets if name and f"{text_set}/".startswith(name + "/")]
    if len(found) == 1:
        return found[0]
    make = f"python -m data_prep.text_features --records={shlex.quote(str(records.root))}"
    off = "switch FRM off with --config.loss.refinement_weight=0"
    if not records.text_sets:
        raise RecordsError(
            f"{records.root}: has no text features, which data.text {wanted!r} names; {make} adds some, or {off}"
        )
    remedy = f"name one, or {off}" if found else f"name one, make others with {make}, or {off}"
    raise RecordsError(
        f"{records.root}: data.text {wanted!r} names {len(found)} of the text sets {list(records.text_sets)}; {remedy}"
    )


def _training_text_set(config: Config, records: Records, rows: np.ndarray) -> str:
    text_set = find_text_set(records, config.data.text)
    _require_all(records, rows, text_set, "loss.refinement_weight")
    return text_set


def _require_all(records: Records, rows: np.ndarray, kind: str, weight: str) -> None:
    missing = records.clips_without(rows, kind)
    if missing:
        raise RecordsError(
            f"{records.root}: {len(missing)} of {len(rows)} training clips have no {kind}, among them "
            f"{', '.join(missing[:5])}; prepare them, or switch them off with --config.{weight}=0"
        )


def image_feature_shape(config: Config, image_size: int) -> tuple[int, ...]:
    """Shape of the features that the config's image encoder computes for one image of `image_size` pixels."""
    encoder, image = image_encoder(config), jnp.zeros((1, image_size, image_size, 3))
    features: Any = jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), image, False)[0])
    return features.shape[1:]
