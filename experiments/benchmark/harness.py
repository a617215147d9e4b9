"""Contenders timed in turn, A B A B, each in a process of its own; medians, and the spread of their ratios.

A process each keeps thread pools and device memory apart; only one works at a time. A ratio is taken within a round,
where both met the same machine, so other load on it moves the times more than the ratios.
"""

import dataclasses
import multiprocessing
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

READY_WITHIN = 600.0  # seconds for all contenders to build themselves, compilation included
_TURN_WITHIN = 600.0  # seconds for a turn


class UnavailableError(RuntimeError):
    """A contender cannot run here: what is missing, and how to get it."""


@dataclasses.dataclass(frozen=True)
class Program:
    """What a contender's process built.

    Attributes:
      run: one unit of work; returns when the work is done, not when it is dispatched.
      outputs: what the work computes, for comparison with the other contenders; None: nothing to compare.
      details: figures about the program, of plain Python types (`flops`, `bytes`, `threads`, ...).
      repeats: how many units of work one `run` is: several steps of a dispatch, say. Times are a unit's.
      close: ends the processes that the program started; None: it started none.
      ahead: runs that are not timed at the beginning of a turn: so many may be done when it begins.
    """

    run: Callable[[], Any]
    outputs: np.ndarray | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    repeats: int = 1
    close: Callable[[], None] | None = None
    ahead: int = 1


@dataclasses.dataclass(frozen=True)
class Contender:
    """A name, and the function, importable by name, that builds its `Program` from `options` in a new process.

    `make` raises UnavailableError where the contender cannot run.
    """

    name: str
    make: Callable[..., Program]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Timing:
    """A contender's turns: `seconds` `[rounds]` a unit of work; empty, with `unavailable`, where it could not run.

    `unavailable` is the reason in one line; `failed` tells an error from what a machine lacks (UnavailableError).
    `peak_memory` is the process's largest resident set in bytes, `worker_memory` the largest of the processes that it
    started and closed.
    """

    name: str
    seconds: np.ndarray
    details: dict[str, Any]
    peak_memory: int = 0
    worker_memory: int = 0
    unavailable: str = ""
    failed: bool = False

    @property
    def median(self) -> float:
        """Seconds a unit of work."""
        return float(np.median(self.seconds))

    def ratio_to(self, other: "Timing") -> tuple[float, float, float]:
        """How many times this one's time is the other's: median, first and third quartile over the rounds."""
        quartiles = np.percentile(self.seconds / other.seconds, (50, 25, 75))
        return tuple(float(value) for value in quartiles)


def alternate(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    turn_seconds: float = 0.5,
    tolerance: float | None = None,
    ready_within: float = READY_WITHIN,
) -> list[Timing]:
    """Times the contenders in turn. One that cannot run, fails or dies has a reason in place of times.

    Args:
      contenders: their outputs are compared with those of the first that has any.
      rounds: turns of each.
      turn_seconds: a turn repeats the work for about as long, after as many repetitions, not timed, as it may be ahead.
      tolerance: bound of the relative difference (norm over norm) of outputs; None: outputs are not compared.
      ready_within: seconds from the start; contenders that are not ready then are left out.

    Raises:
      RuntimeError: the outputs of two contenders differ.
    """
    workers = [_Worker(contender) for contender in contenders]
    try:
        deadline = time.monotonic() + ready_within
        for worker in workers:
            worker.get_ready(deadline, ready_within)
        _compare_outputs([worker for worker in workers if worker.outputs is not None], tolerance)
        for _ in range(rounds):
            for worker in workers:
                worker.take_turn(turn_seconds)
        return [worker.stop() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


def _compare_outputs(workers: "list[_Worker]", tolerance: float | None) -> None:
    if tolerance is None or not workers:
        return
    expected = workers[0].outputs.astype(np.float64)
    for worker in workers[1:]:
        difference = np.linalg.norm(worker.outputs - expected) / np.linalg.norm(expected)
        if not difference <= tolerance:
            raise RuntimeError(
                f"{worker.name} computes something else than {workers[0].name}: relative difference "
                f"{difference:.2g}, at most {tolerance:.2g} expected; nothing was timed"
            )


@dataclasses.dataclass(frozen=True)
class _Ready:
    outputs: np.ndarray | None
    details: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Failure:
    """Why a contender does not run, in one line; the traceback of an error."""

    reason: str
    traceback: str = ""


class _Worker:
    """The process of one contender. Once it failed it is asked nothing more."""

    def __init__(self, contender: Contender):
        context = multiprocessing.get_context("spawn")
        self.name = contender.name
        self.outputs: np.ndarray | None = None
        self._details: dict[str, Any] = {}
        self._seconds: list[float] = []
        self._unavailable, self._failed = "", False
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(contender, theirs))
        self._process.start()
        theirs.close()

    def get_ready(self, deadline: float, ready_within: float) -> None:
        """Waits until the contender is built, until `deadline` (time.monotonic) at most."""
        if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
            self._give_up(f"not ready within {ready_within:.0f} s", failed=False)
            return
        ready = self._receive(_TURN_WITHIN)
        if ready is not None:
            self.outputs, self._details = ready.outputs, ready.details

    def take_turn(self, seconds: float) -> None:
        if not self._unavailable:
            took = self._ask(seconds)
            if took is not None:
                self._seconds.append(took)

    def stop(self) -> Timing:
        """Ends the process. What it did."""
        peaks = None if self._unavailable else self._ask(None)
        if self._unavailable:
            return Timing(self.name, np.array([]), self._details, unavailable=self._unavailable, failed=self._failed)
        return Timing(self.name, np.array(self._seconds), self._details, *peaks)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _ask(self, question: float | None) -> Any:
        try:
            self._pipe.send(question)
        except OSError:  # it died since
            self._give_up(self._how_it_died(), failed=True)
            return None
        return self._receive(_TURN_WITHIN)

    def _receive(self, seconds: float) -> Any:
        """The next answer; None where there is none, and then the reason is noted."""
        try:
            if not self._pipe.poll(seconds):
                self._give_up(f"no answer within {seconds:.0f} s", failed=True)
                return None
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._give_up(self._how_it_died(), failed=True)
            return None
        if isinstance(answer, _Failure):
            print(answer.traceback, end="", file=sys.stderr, flush=True)
            self._give_up(answer.reason, failed=bool(answer.traceback))
            return None
        return answer

    def _how_it_died(self) -> str:
        self._process.join(timeout=10)
        return f"its process died, exit status {self._process.exitcode} (-9: perhaps for lack of memory)"

    def _give_up(self, reason: str, *, failed: bool) -> None:
        self._unavailable, self._failed, self.outputs = reason, failed, None
        self._process.kill()  # the others are to have the machine for themselves


def _serve(contender: Contender, pipe) -> None:
    """The life of a contender's process: build, say so, take turns until told to stop."""
    try:
        program = contender.make(**contender.options)
        program.run()
        pipe.send(_Ready(program.outputs, program.details))
        while (seconds := pipe.recv()) is not None:
            pipe.send(_turn(program, seconds) / program.repeats)
        if program.close is not None:
            program.close()
        users = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
        pipe.send(tuple(resource.getrusage(user).ru_maxrss * 1024 for user in users))
    except UnavailableError as error:
        pipe.send(_Failure(str(error)))
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
        pipe.send(_Failure(reason, f"{contender.name} failed:\n{traceback.format_exc()}"))


def _turn(program: Program, seconds: float) -> float:
    """Mean seconds of one `run`, over as many as fit into `seconds`."""
    for _ in range(program.ahead):
        program.run()
    count, began = 0, time.perf_counter()
    while True:
        program.run()
        count += 1
        elapsed = time.perf_counter() - began
        if elapsed >= seconds:
            return elapsed / count
