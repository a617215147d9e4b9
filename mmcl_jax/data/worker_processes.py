"""Batches that other processes read, through Grain: whatever their number, the same batches in the same order.

Grain deals the elements of a dataset out to its processes in turn and takes them back in turn. So an element is a whole
batch here, and one that is a function of its number alone: with clips as elements, a batch's clips would depend on
how many processes there are.

A process is spawned and opens the records itself. It uses no device, and knows the clips' arrays alone; they come back
in shared memory.
"""

import contextlib
import gc
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np

# Batches that there are of each worker at most: two while it stacks or hands over one, one handed over, two that this
# process has taken; and those of them in shared memory.
HELD, _SHARED = 5, 4
_SHARED_MEMORY = "/dev/shm"  # of Linux; in a container often small
_DEATH = re.compile(r"Worker process was terminated .*exit code (-?\d+)")  # in Grain's words


def read(batch: Callable[[int], dict[str, np.ndarray]], count: int, workers: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields `batch(0)` to `batch(count - 1)`, which `workers` processes read; they start with the first one's asking.

    They end with the last batch, when this is closed, or when this process ends, in whatever way.

    Args:
      batch: is pickled, with all that it refers to.
      count: of batches.
      workers: of processes, at least 1.

    Raises:
      ChildProcessError: a worker died.
      Whatever `batch` raises.
    """
    import grain
    from absl import flags

    if not count:
        return
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain asks for its own, also in programs that take none of absl's
    dataset = grain.MapDataset.range(count).map(batch).to_iter_dataset(grain.ReadOptions(0, 0))
    options = grain.MultiprocessingOptions(num_workers=min(workers, count), per_worker_buffer_size=1)
    try:
        with contextlib.closing(iter(dataset.mp_prefetch(options, worker_init_fn=_begin))) as shared:
            for arrays in shared:
                # Copied, so that shared memory ends here, whoever keeps a batch, and however the program ends.
                copied = {name: np.array(values) for name, values in arrays.items()}
                del arrays
                yield copied
                del copied
    except RuntimeError as error:
        if died := _DEATH.search(str(error)):
            raise ChildProcessError(
                f"a worker process that reads clips died, exit code {died[1]}: perhaps memory, or {_SHARED_MEMORY}, "
                "was full. Start again: the run resumes from its last checkpoint; with fewer --config.data.workers "
                "it needs less, with 0 this process reads"
            ) from error
        raise
    finally:
        gc.collect()  # Grain's exceptions, StopIteration among them, refer to themselves and to a last shared batch


def check_room(
    batch_size: int, clip_bytes: int, workers: int, host_memory_mb: int | None, steps_per_dispatch: int
) -> None:
    """Raises ValueError, saying what would help, where `workers` hold more than the memory that clips may take.

    Beside their batches count one being copied, those of a dispatch being assembled, twice, and those before on their
    way to the device.
    """
    shared = _SHARED * workers + 1
    needed, handed = (
        _megabytes(batches * batch_size * clip_bytes)
        for batches in ((HELD - _SHARED) * workers + shared + 3 * steps_per_dispatch, shared)
    )
    if host_memory_mb is not None and needed > host_memory_mb:
        dispatched = f", {steps_per_dispatch} a dispatch" if steps_per_dispatch > 1 else ""
        raise ValueError(
            f"data.host_memory_mb {host_memory_mb} is too little for data.workers {workers} with a process's batches "
            f"of {batch_size} clips of {clip_bytes // 1000} KB{dispatched}; give it {needed} or more, have fewer "
            "workers, or lower the batch size"
        )
    if os.path.isdir(_SHARED_MEMORY) and (free := shutil.disk_usage(_SHARED_MEMORY).free // 10**6) < handed:
        raise ValueError(
            f"data.workers {workers}: they hand over their batches in {_SHARED_MEMORY}, which has {free} MB free of "
            f"the {handed} needed; give it more (a container's --shm-size), have fewer workers, or none"
        )


def _megabytes(count: int) -> int:
    return -(-count // 10**6)


def _begin(_index: int, _count: int) -> None:
    """What a worker does first."""
    # Ctrl-C, and a scheduler's warning, reach all processes: the run saves first, then it ends its workers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    jax.config.update("jax_platforms", "cpu")  # nothing here uses a device; what did by mistake would take none


def _end_with_parent() -> None:
    """A run that is killed can end nobody."""
    multiprocessing.parent_process().join()
    os._exit(1)
