"""What a config means: records, model, transforms and optimiser of a run, built and checked before anything starts."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmcl_jax import optim
from mmcl_jax.data import input_pipeline, resident
from mmcl_jax.data.input_pipeline import Batch, Fields, steps_per_epoch
from mmcl_jax.data.records import Records, RecordsError
from mmcl_jax.data.transforms import Transform, TransformOptions, make_transform
from mmcl_jax.models import BACKBONES, graphs
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS
from mmcl_jax.models.losses import CONTRASTIVE
from mmcl_jax.models.mmcl import MMCL, REFINEMENT, FeatureAlignment, FeatureRefinement
from mmcl_jax.runtime import sharding
from mmcl_jax.steps import LossOptions, Recipe

if TYPE_CHECKING:
    from ml_collections import ConfigDict


TEXT_SCALING = ("none", "standardise")
# What training computes features in, and the `dtype` that its models have for it.
COMPUTE_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class SkeletonTask:
    """All that evaluation needs: the skeleton model, in float32, and how clips reach it."""

    records: Records
    backbone: object
    transform: Transform
    num_classes: int

    def init(self, key: jax.Array, window: int) -> dict:
        """Initial variables of the backbone (its shapes, under `jax.eval_shape`)."""
        records = self.records
        clip = jnp.zeros((1, records.max_bodies, window, records.num_joints, records.num_channels))
        return {"batch_stats": {}, **self.backbone.init(key, clip, train=False)}  # a backbone may keep no statistics


def build_skeleton_task(config: "ConfigDict", *, train: bool, records: Records | None = None) -> SkeletonTask:
    """Opens the records and builds the skeleton model; `records` are read instead of those that the config names.

    Raises: RecordsError, ValueError for what does not fit.
    """
    if records is None:
        if not config.data.records:
            raise RecordsError("--config.data.records is empty; name the folder that data_prep wrote")
        records = Records(config.data.records)
    if config.model.backbone not in BACKBONES:
        raise ValueError(f"model.backbone {config.model.backbone!r} is not one of {', '.join(BACKBONES)}")
    if config.model.base_channels < 4 or config.model.base_channels % 4:
        raise ValueError(f"model.base_channels {config.model.base_channels} is not a positive multiple of 4")
    if config.model.graph not in graphs.GRAPHS:
        raise ValueError(f"model.graph {config.model.graph!r} is not one of {', '.join(graphs.GRAPHS)}")
    if config.model.graph != "natural" and config.model.backbone != "ctrgcn":
        raise ValueError(f"model.graph {config.model.graph!r} is for ctrgcn alone; {config.model.backbone} has its own")
    if config.data.workers < 0:
        raise ValueError(f"data.workers {config.data.workers} is negative; 0: this process reads")
    layout = records.info.skeleton_layout
    layout.center_of_mass(config.model.center_of_mass)  # raises where the layout has no such joint
    num_classes = len(records.class_names(config.data.protocol))
    return SkeletonTask(
        records=records,
        backbone=BACKBONES[config.model.backbone](num_classes, layout, records.info.num_coordinates, config.model),
        transform=make_transform(
            transform_options(config), layout, records.max_frames, train, coordinates=records.info.num_coordinates
        ),
        num_classes=num_classes,
    )


def transform_options(config: "ConfigDict") -> TransformOptions:
    """What the config does to a clip before the model sees it."""
    return TransformOptions(
        sampling=config.data.sampling,
        window=config.data.window,
        crop_interval=tuple(config.data.crop_interval),
        test_crop=config.data.test_crop,
        rotation=config.data.rotation,
        centre=config.data.centre,
        absent_body=config.data.absent_body,
        stream=config.data.stream,
    )


@dataclasses.dataclass(frozen=True)
class TrainingTask:
    """All that training needs.

    Attributes:
      skeleton: records, backbone and training transform.
      recipe: what its steps are made of: MMCL around the backbone, which computes in the config's
        `compute_dtype`, the transform, SGD, the loss.
      schedule: the learning rate by step.
      rows: training clips.
      steps_per_epoch: whole batches.
      text_set: text set for FRM; None without FRM.
      image_size: side of FAM's images, pixels; None without FAM.
    """

    skeleton: SkeletonTask
    recipe: Recipe
    schedule: optax.Schedule
    rows: np.ndarray
    steps_per_epoch: int
    text_set: str | None
    image_size: int | None


def build_training_task(config: "ConfigDict") -> TrainingTask:
    """Builds a run and checks that records and config fit. Raises: RecordsError, ValueError."""
    _check_values(config)
    sharding.check_batch_size("batch_size", config.batch_size)
    skeleton = build_skeleton_task(config, train=True)
    records = skeleton.records
    rows = records.select(config.data.protocol, "train", config.data.validation_subjects)
    epoch_steps = steps_per_epoch(len(rows), config.data.repeats, config.batch_size)
    _check_dispatch(config, epoch_steps)
    schedule = optim.stepwise_schedule(
        config.learning_rate, config.warmup_epochs, config.drop_epochs, config.drop_factor, epoch_steps
    )
    with_image, with_text = config.loss.contrastive_weight > 0, config.loss.refinement_weight > 0
    for name in ("batch_norm_group_size", "contrastive_group_size"):
        size = config.model[name] if name in config.model else config.loss[name]
        if size is not None and (size < 1 or config.batch_size % size):
            raise ValueError(f"{name} {size} does not divide batch_size {config.batch_size}; choose one that does")
    text_set = _training_text_set(config, records, rows) if with_text else None
    standardises = with_text and config.data.text_scaling == "standardise"
    image_size = _image_size(config, records, rows) if with_image else None
    recipe = Recipe(
        model=_mmcl(config, skeleton, with_image=with_image, with_text=with_text),
        transform=skeleton.transform,
        optimizer=optim.sgd(schedule, config.momentum, config.weight_decay),
        loss=LossOptions(**config.loss),
        text_statistics=text_statistics(records, rows, text_set) if standardises else None,
        image_statistics=IMAGE_ENCODERS[config.model.image_encoder].statistics(config.model.image_encoder_weights)
        if with_image
        else None,
    )
    return TrainingTask(
        skeleton=skeleton,
        recipe=recipe,
        schedule=schedule,
        rows=rows,
        steps_per_epoch=epoch_steps,
        text_set=text_set,
        image_size=image_size,
    )


def text_statistics(records: Records, rows: np.ndarray, text_set: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation, float32 `[D]` each, of a text set over the clips `rows`; a constant feature's deviation is 1.

    A function of records and protocol alone, so that whoever uses a trained FRM later finds the same.
    """
    features = np.stack([records.text(int(row), text_set) for row in rows]).astype(np.float64)
    deviation = features.std(axis=0)
    return features.mean(axis=0).astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)


def _check_values(config) -> None:
    """What would fail only after the workdir was claimed, or in the middle of a run. Raises: ValueError."""
    for name, value in (
        ("num_epochs", config.num_epochs),
        ("eval_every_epochs", config.eval_every_epochs),
        ("log_every_steps", config.log_every_steps),
        ("data.repeats", config.data.repeats),
        ("data.window", config.data.window),
        ("data.threads", config.data.threads),
        ("model.refinement_terms", config.model.refinement_terms),
        ("data.host_memory_mb", config.data.host_memory_mb),
        ("steps_per_dispatch", config.steps_per_dispatch),
    ):
        if value < 1:
            raise ValueError(f"{name} {value} is not a positive number")
    if config.checkpoint_every_steps < 0:
        raise ValueError(f"checkpoint_every_steps {config.checkpoint_every_steps} is negative; 0: after epochs only")
    for name, value in (
        ("loss.contrastive_weight", config.loss.contrastive_weight),
        ("loss.refinement_weight", config.loss.refinement_weight),
    ):
        if value < 0:
            raise ValueError(f"{name} {value} is negative; 0 switches the module off")
    if config.loss.temperature <= 0:
        raise ValueError(f"loss.temperature {config.loss.temperature} is not positive")
    for name, value, known in (
        ("loss.contrastive", config.loss.contrastive, CONTRASTIVE),
        ("data.text_scaling", config.data.text_scaling, TEXT_SCALING),
        ("data.storage", config.data.storage, input_pipeline.STORAGE),
        ("model.refinement_matrices", config.model.refinement_matrices, REFINEMENT),
        ("compute_dtype", config.compute_dtype, COMPUTE_DTYPES),
    ):
        if value not in known:
            raise ValueError(f"{name} {value!r} is not one of {', '.join(known)}")


def _check_dispatch(config, epoch_steps: int) -> None:
    """A dispatch ends where something is logged or saved: a longer one would never come. Raises: ValueError."""
    for name, steps in (
        ("the steps of an epoch", epoch_steps),
        ("log_every_steps", config.log_every_steps),
        ("checkpoint_every_steps", config.checkpoint_every_steps),
    ):
        if 0 < steps < config.steps_per_dispatch:
            raise ValueError(
                f"steps_per_dispatch {config.steps_per_dispatch} is more than {name}, {steps}, and no dispatch goes "
                f"beyond; give it {steps} or a divisor of that"
            )


def _mmcl(config, skeleton: SkeletonTask, *, with_image: bool, with_text: bool) -> MMCL:
    trains_encoder = with_image and not config.model.image_encoder_frozen
    return MMCL(
        backbone=_computing(skeleton.backbone, config),
        image_encoder=_computing(image_encoder(config), config) if trains_encoder else None,
        alignment=FeatureAlignment(skeleton.backbone.feature_width) if with_image else None,
        refinement=FeatureRefinement(config.model.refinement_terms, matrices=config.model.refinement_matrices)
        if with_text
        else None,
    )


def _computing(module: nn.Module, config) -> nn.Module:
    """A backbone or an image encoder as it trains: features in the type that the config names. Raises: ValueError."""
    dtype = COMPUTE_DTYPES[config.compute_dtype]
    if dtype is None:
        return module
    if not hasattr(module, "dtype"):
        raise ValueError(f"compute_dtype {config.compute_dtype!r}: {type(module).__name__} has no field `dtype` for it")
    return module.clone(dtype=dtype)


def image_encoder(config):
    """The image encoder that the config names. Raises: ValueError."""
    name = config.model.image_encoder
    if name not in IMAGE_ENCODERS:
        raise ValueError(f"model.image_encoder {name!r} is not one of {', '.join(IMAGE_ENCODERS)}")
    return IMAGE_ENCODERS[name].module(group_size=config.model.batch_norm_group_size)


def _image_size(config, records: Records, rows: np.ndarray) -> int:
    image_encoder(config)
    _require_all(records, rows, "images", "loss.contrastive_weight")
    return IMAGE_ENCODERS[config.model.image_encoder].image_size


def find_text_set(records: Records, wanted: str) -> str:
    """The one text set of the records whose name is `wanted` or begins with it. Raises: RecordsError."""
    name = wanted.strip("/")
    found = [text_set for text_set in records.text_sets if name and f"{text_set}/".startswith(name + "/")]
    if len(found) != 1:
        raise RecordsError(
            f"{records.root}: data.text {wanted!r} names {len(found)} of the text sets {list(records.text_sets)}; name "
            "one, or switch FRM off with --config.loss.refinement_weight=0"
        )
    return found[0]


def _training_text_set(config, records: Records, rows: np.ndarray) -> str:
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


def train_batches(
    task: TrainingTask,
    config: "ConfigDict",
    steps: tuple[int, int],
    image_features: dict[int, np.ndarray] | None = None,
) -> Iterator[Batch]:
    """The batches of a run from the first of `steps` to before the second, as the config says; see `fields`."""
    start, end = steps
    order = {"seed": config.seed, "batch_size": config.batch_size, "repeats": config.data.repeats}
    if config.data.device_resident:
        draw = input_pipeline.train_order(len(task.rows), **order)
        drawn = (draw(step) for step in range(start, end))
        return ({"row": places.astype(np.int32), "position": positions} for places, positions in drawn)
    return input_pipeline.train_batches(
        task.skeleton.records,
        task.rows,
        fields(task, config, image_features),
        **order,
        start_step=start,
        end_step=end,
        steps_per_dispatch=config.steps_per_dispatch,
        **reading(config, image_features),
    )


def reading(config: "ConfigDict", image_features: dict[int, np.ndarray] | None = None) -> dict[str, int]:
    """How records are read, as the functions of `input_pipeline` take it.

    Where there are `image_features` no processes read: each would hold a copy of them all.
    """
    data = config.data
    workers = data.workers if image_features is None else 0
    return {
        "threads": data.threads,
        "prefetch": data.prefetch,
        "host_memory_mb": data.host_memory_mb,
        "workers": workers,
    }


def resident_clips(
    task: TrainingTask,
    config: "ConfigDict",
    mesh: jax.sharding.Mesh,
    image_features: dict[int, np.ndarray] | None = None,
) -> dict[str, jax.Array] | None:
    """The training clips on the devices, of which the batches name rows; None where batches bring their clips."""
    if not config.data.device_resident:
        return None
    wanted = fields(task, config, image_features)
    records, part_size = task.skeleton.records, config.batch_size
    return resident.load(records, task.rows, wanted, mesh, part_size=part_size, **reading(config, image_features))


def check_room(task: TrainingTask, test_rows: np.ndarray, config: "ConfigDict", mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError where clips shall live on the devices and do not fit; `test_rows` bring skeletons alone."""
    if not config.data.device_resident:
        return
    features = None
    if task.image_size is not None and config.model.image_encoder_frozen:
        features = dict.fromkeys(task.rows.tolist(), np.zeros(image_feature_shape(task, config), np.float32))
    records = task.skeleton.records
    sizes = resident.size(records, task.rows, fields(task, config, features))
    tested = resident.size(records, test_rows, Fields(storage=config.data.storage))
    resident.check_room({**sizes, "test clips": sum(tested.values())}, config.data.storage, mesh)


def image_feature_shape(task: TrainingTask, config: "ConfigDict") -> tuple[int, ...]:
    """Shape of the features that the config's image encoder makes of one image."""
    encoder, image = image_encoder(config), jnp.zeros((1, task.image_size, task.image_size, 3))
    return jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), image, False)[0]).shape[1:]


def fields(task: TrainingTask, config: "ConfigDict", image_features: dict[int, np.ndarray] | None) -> Fields:
    """What the training batches hold; `image_features` by row where the encoder is frozen."""
    records = task.skeleton.records
    image = None
    if image_features is not None:
        image = image_features.__getitem__
    elif task.image_size is not None:
        image = _ImageReader(records, task.image_size)
    return Fields(image=image, text=task.text_set, storage=config.data.storage)


@dataclasses.dataclass(frozen=True)
class _ImageReader:
    records: Records
    size: int

    def __call__(self, row: int) -> np.ndarray:
        return self.records.image(row, self.size)
