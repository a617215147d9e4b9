"""Processes that read inputs one after the other, and may take only so much memory and time."""

import multiprocessing
import os
import pathlib
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

from tests.fuzz.mutations import Step
from tests.fuzz.trees import Tree
from tests.fuzz.verdicts import Verdict

MEMORY = 3 << 30  # bytes of address space beyond what the process has after its imports
PROCESSOR_SECONDS = 30  # of one input
PATIENCE = 60  # seconds after which a process that waits for something is ended


class TooLong(BaseException):
    """An input took more processor time than it may."""


Task = tuple[str, list[Step], Tree | None]  # reader, mutations of its sound tree, or a tree in place of these


class Worker:
    """One process; a new one takes its place when it hangs or dies."""

    def __init__(self):
        self._process: Any = None
        self._pipe: Any = None

    def judge(self, task: Task) -> Verdict:
        """The verdict on one input."""
        if self._process is None or not self._process.is_alive():
            self._start()
        try:
            self._pipe.send(task)
            if not self._pipe.poll(PATIENCE):
                self.close()
                return Verdict("hang", f"more than {PATIENCE} s, in which the process waited")
            return self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(PATIENCE)
            status = self._process.exitcode
            self.close()
            return Verdict("died", f"the process ended with status {status}")

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._process = None

    def _start(self) -> None:
        self.close()
        self._scratch = tempfile.mkdtemp(prefix="mmcl_fuzz_")
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._scratch), daemon=True)
        self._process.start()
        theirs.close()


def judge_all(tasks: Iterable[Task], processes: int) -> Iterator[Verdict]:
    """The verdicts on many inputs, in order, by so many processes."""
    from concurrent.futures import ThreadPoolExecutor

    workers = [Worker() for _ in range(processes)]
    free = list(workers)

    def judge(task: Task) -> Verdict:
        worker = free.pop()
        try:
            return worker.judge(task)
        finally:
            free.append(worker)

    try:
        with ThreadPoolExecutor(processes) as pool:
            yield from pool.map(judge, tasks)
    finally:
        for worker in workers:
            worker.close()


def _work(pipe, scratch: str) -> None:
    """The body of a process: reads tasks from the pipe until it closes."""
    from tests.fuzz import verdicts

    os.environ["JAX_PLATFORMS"] = "cpu"
    folder = pathlib.Path(scratch)
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # libraries in C write there
        os.dup2(null, descriptor)
    import scipy.io  # noqa: F401  what readers import, before the limit
    import tensorflow_datasets  # noqa: F401

    import data_prep.nw_ucla  # noqa: F401

    watch = verdicts.Watch(folder / "canary")
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def too_long(_number, _frame):
        raise TooLong

    signal.signal(signal.SIGPROF, too_long)
    while True:
        try:
            name, steps, tree = pipe.recv()
        except EOFError:
            return
        pipe.send(_judge(name, steps, tree, watch, folder))


def _judge(name: str, steps: list[Step], tree: Tree | None, watch, folder: pathlib.Path) -> Verdict:
    from tests.fuzz import mutations, verdicts

    try:
        may_lose = tree is None and mutations.removes(steps)
        sound = verdicts.sound(name, folder)
        if tree is None:
            tree = mutations.apply(sound.tree, steps)
    except Exception:
        return Verdict("harness", traceback.format_exc())
    signal.setitimer(signal.ITIMER_PROF, PROCESSOR_SECONDS)
    try:
        return verdicts.judge(name, tree, may_lose, watch, folder)
    except TooLong:
        return Verdict("hang", f"more than {PROCESSOR_SECONDS} s of processor time")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
