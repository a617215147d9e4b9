"""Batches of raw clips from records, through Grain.

The global training batch is a pure function of (seed, step): each epoch is a permutation of the clips, each process
reads its contiguous slice of the batch, and `position`, the clip's place in the whole training sequence, keys its
augmentation. No iterator state needs saving.

A batch is a dict of arrays with N clips each: `skeleton` float32 `[N, M, T, V, C]`, padded with zeros; `frames`,
`bodies`, `label` int32 `[N]`; `position` uint32 `[N]`; in evaluation `mask` float32 `[N]`, 0 on fillers;
and as asked for, `image` uint8 `[N, S, S, 3]` or float32 `[N, D]`, and `text` float32 `[N, D]`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from mmcl_jax.records import Records

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Fields:
    """What a run reads beside skeletons.

    Attributes:
      image: function of a clip's row that returns its image or image features; None: no images.
      text: the text set; None: no text.
    """

    image: Callable[[int], np.ndarray] | None = None
    text: str | None = None


def clip_order(num_clips: int, repeats: int, seed: int, epoch: int) -> np.ndarray:
    """The clips of one epoch, in order: a permutation of every clip `repeats` times. int64 `[num_clips * repeats]`."""
    shuffled = np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(num_clips * repeats)
    return shuffled % num_clips


def steps_per_epoch(num_clips: int, repeats: int, batch_size: int) -> int:
    """Whole batches in an epoch; the rest of its clips is dropped.

    Raises:
      ValueError: not one batch.
    """
    steps = num_clips * repeats // batch_size
    if steps == 0:
        raise ValueError(f"batch_size {batch_size} is more than the {num_clips * repeats} clips of an epoch; lower it")
    return steps


def train_batches(
    records: Records,
    rows: np.ndarray,
    fields: Fields,
    *,
    seed: int,
    batch_size: int,
    repeats: int,
    start_step: int,
    end_step: int,
    threads: int,
    prefetch: int,
) -> Iterator[Batch]:
    """Yields this process's slice of the global batches of steps `start_step` to `end_step - 1`."""
    epoch_steps = steps_per_epoch(len(rows), repeats, batch_size)
    order = functools.lru_cache(maxsize=2)(lambda epoch: clip_order(len(rows), repeats, seed, epoch))
    local = batch_size // jax.process_count()

    def load(number: int) -> Batch:
        step, place = divmod(number, local)
        step += start_step
        place += local * jax.process_index()
        epoch, epoch_step = divmod(step, epoch_steps)
        row = rows[order(epoch)[epoch_step * batch_size + place]]
        return {**_read_clip(records, row, fields), "position": np.uint32(step * batch_size + place)}

    return _batched(load, (end_step - start_step) * local, local, threads, prefetch)


def eval_batches(
    records: Records, rows: np.ndarray, *, batch_size: int, threads: int, prefetch: int, fields: Fields = Fields()
) -> Iterator[Batch]:
    """Yields this process's slice of batches that cover `rows` once, in order; the last is filled and masked."""
    steps = -(-len(rows) // batch_size)
    local = batch_size // jax.process_count()

    def load(number: int) -> Batch:
        step, place = divmod(number, local)
        position = step * batch_size + local * jax.process_index() + place
        real = position < len(rows)
        clip = _read_clip(records, rows[position if real else 0], fields)
        return {**clip, "position": np.uint32(position), "mask": np.float32(real)}

    return _batched(load, steps * local, local, threads, prefetch)


def _batched(load: Callable[[int], Batch], clips: int, batch_size: int, threads: int, prefetch: int) -> Iterator[Batch]:
    """Batches of `load(0)`, `load(1)`, ... in this order, read ahead by threads."""
    import grain

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, batch_size))
    dataset = grain.MapDataset.range(clips).map(load).to_iter_dataset(options)
    return iter(dataset.batch(batch_size, drop_remainder=True))


def _read_clip(records: Records, row: int, fields: Fields) -> Batch:
    skeleton = records.skeleton(row)
    bodies, frames = skeleton.shape[:2]
    padded = np.zeros((records.max_bodies, records.max_frames, *skeleton.shape[2:]), np.float32)
    padded[:bodies, :frames] = skeleton
    clip = {
        "skeleton": padded,
        "frames": np.int32(frames),
        "bodies": np.int32(bodies),
        "label": np.int32(records.index["label"][row]),
    }
    if fields.image is not None:
        clip["image"] = fields.image(int(row))
    if fields.text is not None:
        clip["text"] = records.text(row, fields.text)
    return clip
