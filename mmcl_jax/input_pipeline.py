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
    host_memory_mb: int | None = None,
) -> Iterator[Batch]:
    """Yields this process's slice of the global batches of steps `start_step` to `end_step - 1`.

    Raises: ValueError where `host_memory_mb` is not enough for a batch; see `read_ahead`.
    """
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

    clips = (end_step - start_step) * local
    return _batched(load, clips, local, threads, read_ahead(load, clips, local, prefetch, host_memory_mb))


def eval_batches(
    records: Records,
    rows: np.ndarray,
    *,
    batch_size: int,
    threads: int,
    prefetch: int,
    host_memory_mb: int | None = None,
    fields: Fields = Fields(),
) -> Iterator[Batch]:
    """Yields this process's slice of batches that cover `rows` once, in order; the last is filled and masked.

    Raises: ValueError where `host_memory_mb` is not enough for a batch; see `read_ahead`.
    """
    steps = -(-len(rows) // batch_size)
    local = batch_size // jax.process_count()

    def load(number: int) -> Batch:
        step, place = divmod(number, local)
        position = step * batch_size + local * jax.process_index() + place
        real = position < len(rows)
        clip = _read_clip(records, rows[position if real else 0], fields)
        return {**clip, "position": np.uint32(position), "mask": np.float32(real)}

    clips = steps * local
    return _batched(load, clips, local, threads, read_ahead(load, clips, local, prefetch, host_memory_mb))


def read_ahead(
    load: Callable[[int], Batch], clips: int, batch_size: int, prefetch: int, host_memory_mb: int | None
) -> int:
    """How many clips to read ahead: `prefetch`, at least a batch, and as many as `host_memory_mb` MB allow.

    Beside them memory holds a batch being assembled, twice, and the one before it on its way to the device.

    Raises:
      ValueError: there is no room for one clip beside those.
    """
    wanted = max(prefetch, batch_size)
    if host_memory_mb is None or not clips:
        return wanted
    size = sum(np.asarray(value).nbytes for value in load(0).values())
    room = host_memory_mb * 10**6 // size - 3 * batch_size
    if room < 1:
        least = -(-(3 * batch_size + 1) * size // 10**6)
        raise ValueError(
            f"data.host_memory_mb {host_memory_mb} is too little for a process's batches of {batch_size} clips of "
            f"{size // 1000} KB; give it {least} or more, or lower the batch size"
        )
    return min(wanted, room)


def _batched(load: Callable[[int], Batch], clips: int, batch_size: int, threads: int, ahead: int) -> Iterator[Batch]:
    """Batches of `load(0)`, `load(1)`, ... in this order, up to `ahead` of them read before they are asked for."""
    import grain

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
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
