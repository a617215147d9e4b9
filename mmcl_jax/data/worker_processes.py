"""Batches read by other processes, through Grain: the same batches in the same order for any number of processes.

Grain deals the elements of a dataset out to its processes in turn and takes them back in turn. So an element is a whole
batch here, which depends only on its number: with clips as elements, a batch's clips would depend on how many processes
there are.

A process is spawned and opens the records itself. It uses no device and handles only the clips' arrays, which come back
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
from collections.abc import Callable, Generator

import jax
import numpy as np

from mmcl_jax.runtime.errors import ConfigError

# Batches of each worker in memory, at most: two while it stacks or hands over one, one handed over, two that this
# process has taken; and how many of them are in shared memory.
HELD, _SHARED = 5, 4
_SHARED_MEMORY = "/dev/shm"  # of Linux; in a container often small
_DEATH = re.compile(r"Worker process was terminated .*exit code (-?\d+)")  # in Grain's words


def read(
    batch: Callable[[int], dict[str, np.ndarray]], count: int, workers: int
) -> Generator[dict[str, np.ndarray], None, None]:
    """Yields `batch(0)` to `batch(count - 1)`, read by `workers` processes, which start at the first `next`.

    They end after the last batch, when the iterator is closed, or when this process ends for any reason.

    Args:
      batch: is pickled, with everything that it refers to.
      count: number of batches.
      workers: number of processes, at least 1.

    Raises:
      ChildProcessError: a worker died.
      Any error that `batch` raises.
    """
    import grain
    from absl import flags

    if not count:
        return
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads its own flags, also in programs that do not use absl's
    dataset = grain.MapDataset.range(count).map(batch).to_iter_dataset(grain.ReadOptions(0, 0))
    options = grain.MultiprocessingOptions(num_workers=min(workers, count), per_worker_buffer_size=1)
    try:
        with contextlib.closing(iter(dataset.mp_prefetch(options, worker_init_fn=_begin))) as shared:
            for arrays in shared:
                # Copied, so that shared memory is freed here, even if a batch is kept or the program is killed.
                copied = {name: np.array(values) for name, values in arrays.items()}
                del arrays
                yield copied
                del copied
    except RuntimeError as error:
        if died := _DEATH.search(str(error)):
            raise ChildProcessError(
                f"a worker process that reads clips died, exit code {died[1]}; perhaps memory or {_SHARED_MEMORY} was "
                "full. Start again: the run resumes from its last checkpoint. Fewer --config.data.workers need less "
                "memory; with 0 the main process reads"
            ) from error
        raise
    finally:
        gc.collect()  # Grain's exceptions, StopIteration among them, refer to themselves and to a last shared batch


def check_room(
    batch_size: int, clip_bytes: int, workers: int, host_memory_mb: int | None, steps_per_dispatch: int
) -> None:
    """Raises ConfigError, with the remedy, if the batches of `workers` need more than the memory for clips.

    The count includes their batches, one being copied, and three times the batches of a dispatch: two copies while
    it is assembled, and the previous dispatch on its way to the device.
    """
    shared = _SHARED * workers + 1
    needed, handed = (
        _megabytes(batches * batch_size * clip_bytes)
        for batches in ((HELD - _SHARED) * workers + shared + 3 * steps_per_dispatch, shared)
    )
    if host_memory_mb is not None and needed > host_memory_mb:
        dispatched = f", {steps_per_dispatch} a dispatch" if steps_per_dispatch > 1 else ""
        raise ConfigError(
            f"data.host_memory_mb {host_memory_mb} is too little for data.workers {workers} with a process's batches "
            f"of {batch_size} clips of {clip_bytes // 1000} KB{dispatched}; give it {needed} or more, use fewer "
            "workers, or lower the batch size"
        )
    if os.path.isdir(_SHARED_MEMORY) and (free := shutil.disk_usage(_SHARED_MEMORY).free // 10**6) < handed:
        raise ConfigError(
            f"data.workers {workers}: they pass their batches through {_SHARED_MEMORY}, which has {free} MB free "
            f"of the {handed} needed; give it more (a container's --shm-size), or use fewer workers or none"
        )


def _megabytes(count: int) -> int:
    return -(-count // 10**6)


def _begin(_index: int, _count: int) -> None:
    """The first thing that a worker does."""
    # Ctrl-C and a scheduler's warning reach all processes: the run saves first, then it ends its workers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    jax.config.update("jax_platforms", "cpu")  # a worker must not take an accelerator by mistake


def _end_with_parent() -> None:
    """Ends this worker when its run ends, which a killed run cannot do itself."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
