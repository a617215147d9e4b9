"""Batches of raw clips from records, through Grain.

The global training batch is a pure function of (seed, step): each epoch is a permutation of the clips, each process
reads its contiguous slice of the batch, and `position`, the clip's place in the whole training sequence, keys its
augmentation. No iterator state needs saving. Clips are read by threads of this process, or by other processes
(`worker_processes`).

A batch is a dict of arrays with N clips each: `skeleton` float32 or float16 `[N, M, T, V, C]`, padded with zeros;
`frames`, `bodies`, `label` int32 `[N]`; `position` uint32 `[N]`; in evaluation `mask` float32 `[N]`, 0 on fillers;
and as asked for, `image` uint8 `[N, S, S, 3]` or float32 `[N, D]`, and `text` float32 `[N, D]`. Where the clips are
on the devices already (`resident`), a batch names them alone: `row` int32 `[N]`, their places among them.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from mmcl_jax.data import worker_processes
from mmcl_jax.data.records import Records, RecordsError

Batch = dict[str, np.ndarray]
_BESIDE = ("position", "mask")  # what an order says of clips beside their places
STORAGE = {"float32": np.float32, "float16": np.float16}


@dataclasses.dataclass(frozen=True)
class Fields:
    """What a run reads of a clip: its skeleton, and what else.

    Attributes:
      image: function of a clip's row that returns its image or image features; None: no images.
      text: the text set; None: no text.
      storage: what skeletons are kept in up to the transform, which computes in float32. 'float16' halves them, and
        rounds a coordinate by at most 2^-11 of its size: joints within 1, 2 and 4 metres of the origin by at most
        0.25, 0.5 and 1 mm an axis, where a depth sensor errs by more than 10. (Next to 0 by at most 2^-25.)
    """

    image: Callable[[int], np.ndarray] | None = None
    text: str | None = None
    storage: str = "float32"


@functools.lru_cache(maxsize=2)
def clip_order(num_clips: int, repeats: int, seed: int, epoch: int) -> np.ndarray:
    """The clips of one epoch, in order: a permutation of every clip `repeats` times. int64 `[num_clips * repeats]`."""
    shuffled = np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(num_clips * repeats)
    order = shuffled % num_clips
    order.flags.writeable = False  # it is kept
    return order


def steps_per_epoch(num_clips: int, repeats: int, batch_size: int) -> int:
    """Whole batches in an epoch; the rest of its clips is dropped.

    Raises:
      ValueError: not one batch.
    """
    steps = num_clips * repeats // batch_size
    if steps == 0:
        raise ValueError(f"batch_size {batch_size} is more than the {num_clips * repeats} clips of an epoch; lower it")
    return steps


def train_order(
    num_clips: int, *, seed: int, batch_size: int, repeats: int
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Returns the function of a step that gives this process's slice of the global batch.

    Of each clip its place among the `num_clips`, int64 `[N]`, and its position in the whole training, uint32 `[N]`.
    """
    epoch_steps = steps_per_epoch(num_clips, repeats, batch_size)
    local = batch_size // jax.process_count()
    places = np.arange(local) + local * jax.process_index()

    def at(step: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, epoch_step = divmod(step, epoch_steps)
        order = clip_order(num_clips, repeats, seed, epoch)
        return order[epoch_step * batch_size + places], (step * batch_size + places).astype(np.uint32)

    return at


def eval_order(num_clips: int, batch_size: int) -> Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The same of batches that cover the clips once, in order; fillers are the first clip.

    Beside place and position float32 `mask`: 0 on fillers.
    """
    local = batch_size // jax.process_count()
    places = np.arange(local) + local * jax.process_index()

    def at(step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        position = step * batch_size + places
        real = position < num_clips
        return np.where(real, position, 0), position.astype(np.uint32), real.astype(np.float32)

    return at


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
    steps_per_dispatch: int = 1,
    **reading: int | None,
) -> Iterator[Batch]:
    """Yields this process's slice of the global batches of steps `start_step` to `end_step - 1`.

    `reading` as `_batches` takes it. Raises: ValueError where `host_memory_mb` is not enough for a batch.
    """
    order = train_order(len(rows), seed=seed, batch_size=batch_size, repeats=repeats)
    count, local = end_step - start_step, batch_size // jax.process_count()

    def shifted(number: int) -> tuple[np.ndarray, ...]:
        return order(start_step + number)

    return _batches(records, rows, fields, shifted, count, local, steps_per_dispatch=steps_per_dispatch, **reading)


def eval_batches(
    records: Records,
    rows: np.ndarray,
    *,
    batch_size: int,
    fields: Fields = Fields(),
    passes: int = 1,
    **reading: int | None,
) -> Iterator[Batch]:
    """Yields this process's slice of batches that cover `rows` in order, `passes` times; the last is filled and masked.

    `reading` as `_batches` takes it. Raises: ValueError where `host_memory_mb` is not enough for a batch.
    """
    order = eval_order(len(rows), batch_size)
    count, local = -(-len(rows) // batch_size), batch_size // jax.process_count()

    def repeated(number: int) -> tuple[np.ndarray, ...]:
        return order(number % count)

    return _batches(records, rows, fields, repeated, passes * count, local, **reading)


def in_parts(
    records: Records, rows: np.ndarray, fields: Fields, *, size: int, **reading: int | None
) -> Iterator[tuple[int, Batch]]:
    """Yields the clips `rows` in parts of `size`, each with the place of its first clip; alike in every process.

    The last part begins early enough to be whole. `reading` and raises: as `train_batches`.
    """
    size = min(size, len(rows))
    begins = [min(begin, len(rows) - size) for begin in range(0, len(rows), size)]

    def order(part: int) -> tuple[np.ndarray]:
        return (begins[part] + np.arange(size),)

    return zip(begins, _batches(records, rows, fields, order, len(begins), size, **reading), strict=True)


def _batches(
    records: Records,
    rows: np.ndarray,
    fields: Fields,
    order: Callable[[int], tuple[np.ndarray, ...]],
    count: int,
    batch_size: int,
    *,
    threads: int,
    prefetch: int,
    host_memory_mb: int | None = None,
    workers: int = 0,
    steps_per_dispatch: int = 1,
) -> Iterator[Batch]:
    """Yields `count` batches of the clips `rows`, each of those at the places that `order` has for its number.

    Args:
      order: of a batch's number; what it says of the clips beside their places is in the batch: position, mask.
      threads: of this process, that read where there are no `workers`.
      prefetch: clips to read ahead, likewise; see `read_ahead`.
      host_memory_mb: bound of what all clips and batches take, in MB of 10^6 bytes; None: no bound.
      workers: processes that read instead; see `worker_processes`.

    Raises: ValueError where `host_memory_mb` is not enough.
    """
    if workers:

        def batch(number: int) -> Batch:
            places, *beside = order(number)
            clips = [read_clip(records, rows[place], fields) for place in places]
            stacked = {name: np.stack([clip[name] for clip in clips]) for name in clips[0]}
            return stacked | dict(zip(_BESIDE, beside, strict=False))

        if count:
            clip_bytes = _bytes(read_clip(records, rows[order(0)[0][0]], fields))
            worker_processes.check_room(batch_size, clip_bytes, workers, host_memory_mb, steps_per_dispatch)
        return worker_processes.read(batch, count, workers)

    # Clips are read one by one, of a few batches at once: each batch's order is made once.
    kept_order = functools.lru_cache(8)(order)

    def load(number: int) -> Batch:
        step, place = divmod(number, batch_size)
        places, *beside = kept_order(step)
        clip = read_clip(records, rows[places[place]], fields)
        return clip | {name: values[place] for name, values in zip(_BESIDE, beside, strict=False)}

    clips = count * batch_size
    ahead = read_ahead(load, clips, batch_size, prefetch, host_memory_mb, steps_per_dispatch)
    return _batched(load, clips, batch_size, threads, ahead)


def read_ahead(
    load: Callable[[int], Batch],
    clips: int,
    batch_size: int,
    prefetch: int,
    host_memory_mb: int | None,
    steps_per_dispatch: int = 1,
) -> int:
    """How many clips to read ahead: `prefetch`, at least a batch, and as many as `host_memory_mb` MB allow.

    Beside them memory holds the batches of a dispatch being assembled, twice, and those before on their way to the
    device.

    Raises:
      ValueError: there is no room for one clip beside those.
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
        raise ValueError(
            f"data.host_memory_mb {host_memory_mb} is too little for a process's batches of {batch_size} clips of "
            f"{size // 1000} KB{dispatched}; give it {least} or more, or lower the batch size"
        )
    return min(wanted, room)


def _bytes(clip: Batch) -> int:
    return sum(np.asarray(value).nbytes for value in clip.values())


def _batched(load: Callable[[int], Batch], clips: int, batch_size: int, threads: int, ahead: int) -> Iterator[Batch]:
    """Batches of `load(0)`, `load(1)`, ... in this order, up to `ahead` of them read before they are asked for."""
    import grain

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    dataset = grain.MapDataset.range(clips).map(load).to_iter_dataset(options)
    return iter(dataset.batch(batch_size, drop_remainder=True))


def read_clip(records: Records, row: int, fields: Fields) -> Batch:
    """One clip as batches hold it, without what is the batch's: position and mask.

    Raises: RecordsError where the records hold no such clip, or float16 cannot.
    """
    skeleton = records.skeleton(row)
    bodies, frames = skeleton.shape[:2]
    storage = STORAGE[fields.storage]
    if storage is np.float16 and np.abs(skeleton).max() > np.finfo(storage).max:
        raise RecordsError(
            f"{records.root}: clip {records.index['name'][row]} has coordinates up to {np.abs(skeleton).max():g} "
            f"{records.info.units}, float16 ends at {np.finfo(storage).max:g}; use --config.data.storage=float32"
        )
    padded = np.zeros((records.max_bodies, records.max_frames, *skeleton.shape[2:]), storage)
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
