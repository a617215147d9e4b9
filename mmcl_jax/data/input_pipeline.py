"""Batches of raw clips from records, through Grain.

The global training batch is a pure function of (seed, step): each epoch is a permutation of the clips, each process
reads its contiguous slice of the batch, and `position`, the clip's place in the whole training sequence, is the key of
its augmentation. No iterator state needs saving. Clips are read by threads of this process, or by other processes
(`worker_processes`).

The path of a clip, from caller to callee: `train_order` says which clips a step takes; `_batches` reads them, each with
`read_clip`, in threads or workers; the batch goes to the devices (`sharding.place_batch`), where the step transforms
the clips.

A batch is a dict of arrays with N clips each: `skeleton` float32 or float16 `[N, M, T, V, C]`, padded with zeros;
`frames`, `bodies`, `label` int32 `[N]`; `position` uint32 `[N]`; in evaluation `mask` float32 `[N]`, 0 on fillers;
and on request `image` uint8 `[N, S, S, 3]` or float32 `[N, D]`, and `text` float32 `[N, D]`. If the clips are already
on the devices (`resident`), a batch holds only their numbers: `row` int32 `[N]`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np

from mmcl_jax.data import worker_processes
from mmcl_jax.data.records import Records, RecordsError
from mmcl_jax.runtime.errors import ConfigError
from mmcl_jax.runtime.words import counted

STORAGE = {"float32": np.float32, "float16": np.float16}
Batch = dict[str, np.ndarray]
Clip = dict[str, Any]  # the arrays and numbers of one clip, under the names of a batch
# An order gives, for the number of a batch, the places of its clips among the rows, and then what the batch says of
# them: their positions, and in evaluation the mask. One array `[N]` each.
Order = Callable[[int], tuple[np.ndarray, ...]]
_ORDERED = ("position", "mask")


class Batches(Protocol):
    """An iterator of batches. `close` ends the threads or processes that read them."""

    def __iter__(self) -> Iterator[Batch]: ...
    def __next__(self) -> Batch: ...
    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Fields:
    """What a run reads of a clip: always the skeleton, on request an image and text.

    Attributes:
      image: function of a clip's row that returns its image or image features; None: no images.
      text: the text set; None: no text.
      storage: type of the skeletons before the transform, which computes in float32. 'float16' takes half the memory
        and rounds a coordinate by at most 2^-11 of its size: joints within 1, 2 and 4 meters of the origin by at most
        0.25, 0.5 and 1 mm per axis, where a depth sensor errs by more than 10. (Close to 0, by at most 2^-25.)
    """

    image: Callable[[int], np.ndarray] | None = None
    text: str | None = None
    storage: str = "float32"


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How clips are read. None of it changes the batches.

    Attributes:
      threads: threads of this process that read, if there are no `workers`.
      prefetch: clips that the threads read ahead, at least a batch; see `read_ahead`.
      host_memory_mb: limit for all clips and batches of this process, in MB of 10^6 bytes; None: no limit.
      workers: processes that read instead of the threads; see `worker_processes`.
    """

    threads: int = 4
    prefetch: int = 64
    host_memory_mb: int | None = None
    workers: int = 0


@functools.lru_cache(maxsize=2)
def clip_order(num_clips: int, repeats: int, seed: int, epoch: int) -> np.ndarray:
    """The clips of one epoch, in order: a permutation of every clip `repeats` times. int64 `[num_clips * repeats]`."""
    shuffled = np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(num_clips * repeats)
    order = shuffled % num_clips
    order.flags.writeable = False  # it is cached
    return order


def steps_per_epoch(num_clips: int, repeats: int, batch_size: int) -> int:
    """Whole batches in an epoch; the remaining clips are dropped. Raises: ConfigError if there is not one batch."""
    steps = num_clips * repeats // batch_size
    if steps == 0:
        raise ConfigError(
            f"batch_size {batch_size} is more than the {counted(num_clips * repeats, 'clip')} of an epoch; lower it "
            "with --config.batch_size, or train on more clips"
        )
    return steps


def train_order(num_clips: int, *, seed: int, batch_size: int, repeats: int) -> Order:
    """Returns the function from a step to this process's slice of the global batch.

    The slice is each clip's place among the `num_clips`, int64 `[N]`, and its position in the whole training, uint32
    `[N]`.
    """
    epoch_steps = steps_per_epoch(num_clips, repeats, batch_size)
    local = batch_size // jax.process_count()
    places = np.arange(local) + local * jax.process_index()

    def at(step: int) -> tuple[np.ndarray, ...]:
        epoch, epoch_step = divmod(step, epoch_steps)
        order = clip_order(num_clips, repeats, seed, epoch)
        return order[epoch_step * batch_size + places], (step * batch_size + places).astype(np.uint32)

    return at


def eval_order(num_clips: int, batch_size: int) -> Order:
    """Like `train_order`, for batches that cover the clips once, in order; the last one is filled with the first clip.

    After place and position comes `mask`, float32 `[N]`: 0 on fillers.
    """
    local = batch_size // jax.process_count()
    places = np.arange(local) + local * jax.process_index()

    def at(step: int) -> tuple[np.ndarray, ...]:
        position = step * batch_size + places
        real = position < num_clips
        return np.where(real, position, 0), position.astype(np.uint32), real.astype(np.float32)

    return at


def train_batches(
    records: Records,
    rows: np.ndarray,
    fields: Fields,
    options: ReadOptions = ReadOptions(),
    *,
    seed: int,
    batch_size: int,
    repeats: int,
    start_step: int,
    end_step: int,
    steps_per_dispatch: int = 1,
) -> Batches:
    """Yields this process's slice of the global batches of steps `start_step` to `end_step - 1`.

    Args:
      records: where the clips are.
      rows: int `[R]`, rows of the training clips in the records.
      fields: what is read of each clip.
      options: how.
      seed: of the order.
      batch_size: of the global batch.
      repeats: how often each clip occurs in an epoch.
      start_step, end_step: the steps, from 0.
      steps_per_dispatch: batches that are collected before they go to the devices; they count as memory in use.

    Raises: ConfigError if `options.host_memory_mb` is not enough for a batch.
    """
    order = train_order(len(rows), seed=seed, batch_size=batch_size, repeats=repeats)
    count, local = end_step - start_step, batch_size // jax.process_count()

    def shifted(number: int) -> tuple[np.ndarray, ...]:
        return order(start_step + number)

    return _batches(records, rows, fields, shifted, count, local, options, steps_per_dispatch)


def eval_batches(
    records: Records,
    rows: np.ndarray,
    fields: Fields = Fields(),
    options: ReadOptions = ReadOptions(),
    *,
    batch_size: int,
    passes: int = 1,
) -> Batches:
    """Yields this process's slice of batches that cover `rows` in order, `passes` times; the last is filled and masked.

    Arguments and errors are those of `train_batches`.
    """
    order = eval_order(len(rows), batch_size)
    count, local = -(-len(rows) // batch_size), batch_size // jax.process_count()

    def repeated(number: int) -> tuple[np.ndarray, ...]:
        return order(number % count)

    return _batches(records, rows, fields, repeated, passes * count, local, options)


def in_parts(
    records: Records, rows: np.ndarray, fields: Fields, options: ReadOptions, *, size: int
) -> Iterator[tuple[int, Batch]]:
    """Yields (place of the first clip, clips) for parts of `size` of the clips `rows`; the same in every process.

    The last part begins early enough to be whole. Arguments and errors are those of `train_batches`.
    """
    size = min(size, len(rows))
    begins = [min(begin, len(rows) - size) for begin in range(0, len(rows), size)]

    def order(part: int) -> tuple[np.ndarray, ...]:
        return (begins[part] + np.arange(size),)

    return zip(begins, _batches(records, rows, fields, order, len(begins), size, options), strict=True)


def _batches(
    records: Records,
    rows: np.ndarray,
    fields: Fields,
    order: Order,
    count: int,
    batch_size: int,
    options: ReadOptions,
    steps_per_dispatch: int = 1,
) -> Batches:
    """Yields `count` batches of `batch_size` of the clips `rows`; batch n holds the clips `order(n)`.

    Raises: ConfigError if `options.host_memory_mb` is not enough.
    """
    if options.workers:

        def batch(number: int) -> Batch:
            places, *ordered = order(number)
            clips = [read_clip(records, int(rows[place]), fields) for place in places]
            stacked = {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}
            return stacked | dict(zip(_ORDERED, ordered, strict=False))

        if count:
            clip_bytes = _bytes(read_clip(records, int(rows[order(0)[0][0]]), fields))
            worker_processes.check_room(
                batch_size, clip_bytes, options.workers, options.host_memory_mb, steps_per_dispatch
            )
        return worker_processes.read(batch, count, options.workers)

    # Clips of several batches are read at once, one by one: each batch's order is computed once.
    cached_order = functools.lru_cache(8)(order)

    def load(number: int) -> Clip:
        step, place = divmod(number, batch_size)
        places, *ordered = cached_order(step)
        clip = read_clip(records, int(rows[places[place]]), fields)
        return clip | {name: values[place] for name, values in zip(_ORDERED, ordered, strict=False)}

    clips = count * batch_size
    ahead = read_ahead(load, clips, batch_size, options.prefetch, options.host_memory_mb, steps_per_dispatch)
    return _batched(load, clips, batch_size, options.threads, ahead)


def read_ahead(
    load: Callable[[int], Clip],
    clips: int,
    batch_size: int,
    prefetch: int,
    host_memory_mb: int | None,
    steps_per_dispatch: int = 1,
) -> int:
    """How many clips to read ahead: `prefetch`, at least a batch, and as many as `host_memory_mb` MB allow.

    Besides them, memory holds three times the batches of a dispatch: two copies while it is assembled, and the previous
    dispatch on its way to the device.

    Raises: ConfigError if there is no room for one more clip.
    """
    wanted = max(prefetch, batch_size)
    if host_memory_mb is None or not clips:
        return wanted
    size = _bytes(load(0))
    held = 3 * batch_size * steps_per_dispatch
    room = host_memory_mb * 10**6 // size - held
    if room < 1:
        least = -(-(held + 1) * size // 10**6)
        dispatched = f", {steps_per_dispatch} a dispatch" if steps_per_dispatch > 1 else ""
        raise ConfigError(
            f"data.host_memory_mb {host_memory_mb} is too little for a process's batches of {batch_size} clips of "
            f"{size // 1000} KB{dispatched}; give it {least} or more, or lower the batch size"
        )
    return min(wanted, room)


def _bytes(clip: Clip) -> int:
    return sum(np.asarray(value).nbytes for value in clip.values())


def _batched(load: Callable[[int], Clip], clips: int, batch_size: int, threads: int, ahead: int) -> Batches:
    """Batches of `load(0)`, `load(1)`, ... in this order; up to `ahead` of these clips are read in advance."""
    import grain

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    dataset = grain.MapDataset.range(clips).map(load).to_iter_dataset(options)
    return iter(dataset.batch(batch_size, drop_remainder=True))


def read_clip(records: Records, row: int, fields: Fields) -> Clip:
    """One clip as batches hold it, without `position` and `mask`, which depend on the batch.

    Raises: RecordsError if the clip cannot be read, has other bodies than the index says, or its coordinates are too
    large for float16.
    """
    skeleton = records.skeleton(row)
    bodies, frames = skeleton.shape[:2]
    expected = int(records.index["num_bodies"][row])  # by which training chooses its programs
    if bodies != expected:
        raise RecordsError(
            f"{records.root}: clip {records.index['name'][row]} has {bodies} bodies, its index says {expected}; "
            "prepare again"
        )
    storage = STORAGE[fields.storage]
    if storage is np.float16 and np.abs(skeleton).max() > np.finfo(np.float16).max:
        raise RecordsError(
            f"{records.root}: clip {records.index['name'][row]} has coordinates up to {np.abs(skeleton).max():g} "
            f"{records.info.units}, the largest float16 is {np.finfo(np.float16).max:g}; use "
            "--config.data.storage=float32"
        )
    padded = np.zeros((records.max_bodies, records.max_frames, *skeleton.shape[2:]), storage)
    padded[:bodies, :frames] = skeleton
    clip: Clip = {
        "skeleton": padded,
        "frames": np.int32(frames),
        "bodies": np.int32(bodies),
        "label": np.int32(records.index["label"][row]),
    }
    if fields.image is not None:
        clip["image"] = fields.image(row)
    if fields.text is not None:
        clip["text"] = records.text(row, fields.text)
    return clip
