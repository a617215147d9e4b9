"""Many items in order by many processes, which end with their parent and stop at once in the middle of an item."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from typing import Any

_WINDOW_PER_WORKER = 8  # items in flight, which bounds the memory
_SECONDS_TO_STOP = 2.0  # after which a worker that is asked to stop is ended


def map_in_order(function: Callable, items: Iterable, workers: int) -> Iterator:
    """`map(function, items)` with `workers` processes, in order, with a bounded number of items in flight.

    If the iterator is closed, or an exception such as that of Ctrl-C ends it, `function` is interrupted wherever it is:
    KeyboardInterrupt is raised in it, so that it can remove what it has half written. No further item begins.

    `function` must be a module-level function. One worker means this process. Raises: BrokenProcessPool if a worker
    dies.
    """
    if workers == 1:
        yield from map(function, items)
        return
    # Spawned, because ArrayRecord's threads would not survive a fork.
    context = multiprocessing.get_context("spawn")
    # The workers stop when their end of this pipe says that the other is closed. Nobody has to answer, so a worker that
    # was killed holds nobody up.
    stop, running = context.Pipe(duplex=False)
    with (
        contextlib.closing(stop),
        contextlib.closing(running),
        concurrent.futures.ProcessPoolExecutor(workers, context, _prepare_worker, (stop,)) as pool,
    ):
        pending: collections.deque = collections.deque()
        try:
            for item in items:
                with _without_interrupts():  # a worker that starts inherits this
                    pending.append(pool.submit(_work, function, item))
                if len(pending) == workers * _WINDOW_PER_WORKER:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            running.close()
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Holds Ctrl-C back while the body runs."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    """The state of a worker process."""

    at_work = False  # whether `function` runs, which only the main thread changes
    stopping = threading.Event()


def _work(function: Callable, item: Any) -> Any:
    _Worker.at_work = True
    try:
        if _Worker.stopping.is_set():
            raise KeyboardInterrupt
        return function(item)
    finally:
        _Worker.at_work = False


def _prepare_worker(stop: connection.Connection) -> None:
    """Makes this worker stop when `stop` is closed at its other end, and end when its parent does, even if killed."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    parent: Any = multiprocessing.parent_process()

    def watch() -> None:
        connection.wait([stop, parent.sentinel])
        _Worker.stopping.set()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # also out of a wait
        parent.join(_SECONDS_TO_STOP)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _interrupt(_number, _frame) -> None:
    """Interrupts the item if the parent has said so, once: on Ctrl-C, which every process gets, the parent decides."""
    if _Worker.stopping.is_set() and _Worker.at_work:
        _Worker.at_work = False
        raise KeyboardInterrupt
