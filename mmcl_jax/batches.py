"""What the batches of a run hold, and how its clips are read: from the records, or once onto the devices."""

import dataclasses

import jax
import numpy as np

from mmcl_jax.config import Config
from mmcl_jax.data import input_pipeline, resident
from mmcl_jax.data.input_pipeline import Batches, Fields, ReadOptions
from mmcl_jax.data.records import Records
from mmcl_jax.task import TrainingTask, image_feature_shape

ImageFeatures = dict[int, np.ndarray]  # by row of the records, float32 `[D]`: from a frozen image encoder


def train_batches(task: TrainingTask, steps: tuple[int, int], image_features: ImageFeatures | None = None) -> Batches:
    """The batches of a run for the steps from `steps[0]` up to, not including, `steps[1]`.

    They hold the clips, or the numbers of resident clips; see `fields` and `resident_clips`.
    """
    (start, end), config = steps, task.config
    repeats = config.data.repeats
    if config.data.device_resident:
        order = input_pipeline.train_order(
            len(task.rows), seed=config.seed, batch_size=config.batch_size, repeats=repeats
        )
        drawn = (order(step) for step in range(start, end))
        return ({"row": places.astype(np.int32), "position": positions} for places, positions in drawn)
    return input_pipeline.train_batches(
        task.skeleton.records,
        task.rows,
        fields(task, image_features),
        read_options(config, image_features),
        seed=config.seed,
        batch_size=config.batch_size,
        repeats=repeats,
        start_step=start,
        end_step=end,
        steps_per_dispatch=config.steps_per_dispatch,
    )


def read_options(config: Config, image_features: ImageFeatures | None = None) -> ReadOptions:
    """How the config reads clips. With `image_features` no worker reads: each would hold a copy of them all."""
    data = config.data
    return ReadOptions(
        threads=data.threads,
        prefetch=data.prefetch,
        host_memory_mb=data.host_memory_mb,
        workers=data.workers if image_features is None else 0,
    )


def resident_clips(
    task: TrainingTask, mesh: jax.sharding.Mesh, image_features: ImageFeatures | None = None
) -> dict[str, jax.Array] | None:
    """The training clips on the devices, whose numbers the batches hold; None if batches hold the clips themselves."""
    if not task.config.data.device_resident:
        return None
    return resident.load(
        task.skeleton.records,
        task.rows,
        fields(task, image_features),
        read_options(task.config, image_features),
        mesh,
        part_size=task.config.batch_size,
    )


def check_room(task: TrainingTask, test_rows: np.ndarray, mesh: jax.sharding.Mesh) -> None:
    """Raises ConfigError if clips are to stay on the devices and do not fit; of `test_rows`, only the skeletons do."""
    config = task.config
    if not config.data.device_resident:
        return
    features = None
    if task.image_size is not None and config.model.image_encoder_frozen:
        blank = np.zeros(image_feature_shape(config, task.image_size), np.float32)
        features = dict.fromkeys(task.rows.tolist(), blank)
    records, storage = task.skeleton.records, config.data.storage
    sizes = resident.size(records, task.rows, fields(task, features))
    tested = resident.size(records, test_rows, Fields(storage=storage))
    resident.check_room({**sizes, "test clips": sum(tested.values())}, storage, mesh)


def fields(task: TrainingTask, image_features: ImageFeatures | None = None) -> Fields:
    """What the training batches hold; with a frozen encoder, `image_features` in place of the images."""
    records = task.skeleton.records
    image = None
    if image_features is not None:
        image = {row: image_features[other] for row, other in image_rows(task).items()}.__getitem__
    elif task.image_size is not None:
        image = _ImageReader(records, task.image_size, image_rows(task))
    return Fields(image=image, text=task.text_set, storage=task.config.data.storage)


@dataclasses.dataclass(frozen=True)
class _ImageReader:
    records: Records
    size: int
    rows: dict[int, int]

    def __call__(self, row: int) -> np.ndarray:
        return self.records.image(self.rows[row], self.size)


def image_rows(task: TrainingTask) -> dict[int, int]:
    """The row whose image FAM sees, for each training clip's row: its own, or with `data.shuffled_images` another."""
    rows = others = task.rows
    if task.config.data.shuffled_images:
        rows = np.random.default_rng(np.random.SeedSequence([task.config.seed])).permutation(rows)
        others = np.roll(rows, 1)
    return dict(zip(rows.tolist(), others.tolist(), strict=True))
