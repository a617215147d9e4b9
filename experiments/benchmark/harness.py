"""Contenders timed in turn, A B A B, each in a process of its own; medians, and the spread of their ratios.

A process each keeps thread pools and device memory apart; only one works at a time. A ratio is taken within a round,
where both met the same machine, so other load on it moves the times more than the ratios.
"""

import dataclasses
import multiprocessing
import resource
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_WAIT_SECONDS = 600  # for a contender to build itself (compilation) or to take its turn


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

    `peak_memory` is the process's largest resident set in bytes, `worker_memory` the largest of the processes that it
    started and closed.
    """

    name: str
    seconds: np.ndarray
    details: dict[str, Any]
    peak_memory: int = 0
    worker_memory: int = 0
    unavailable: str = ""

    @property
    def median(self) -> float:
        """Seconds a unit of work."""
        return float(np.median(self.seconds))

    def ratio_to(self, other: "Timing") -> tuple[float, float, float]:
        """How many times this one's time is the other's: median, first and third quartile over the rounds."""
        quartiles = np.percentile(self.seconds / other.seconds, (50, 25, 75))
        return tuple(float(value) for value in quartiles)


def alternate(
    contenders: Sequence[Contender], *, rounds: int, turn_seconds: float = 0.5, tolerance: float | None = None
) -> list[Timing]:
    """Times the contenders in turn.

    Args:
      contenders: the first is the one that the others' outputs are compared with.
      rounds: turns of each.
      turn_seconds: a turn repeats the work for about as long, after as many repetitions, not timed, as it may be ahead.
      tolerance: bound of the relative difference (norm over norm) of outputs; None: outputs are not compared.

    Raises:
      RuntimeError: a contender failed, or its outputs differ.
    """
    workers = [_Worker(contender) for contender in contenders]
    try:
        ready = [worker.receive() for worker in workers]
        _compare_outputs(contenders, [outputs for _, outputs, _ in ready], tolerance)
        seconds: list[list[float]] = [[] for _ in workers]
        for _ in range(rounds):
            for worker, (unavailable, _, _), turns in zip(workers, ready, seconds, strict=True):
                if not unavailable:
                    turns.append(worker.take_turn(turn_seconds))
        return [
            Timing(contender.name, np.array(turns), details, *worker.stop(), unavailable)
            for contender, worker, turns, (unavailable, _, details) in zip(
                contenders, workers, seconds, ready, strict=True
            )
        ]
    finally:
        for worker in workers:
            worker.kill()


def _compare_outputs(contenders: Sequence[Contender], outputs: list[np.ndarray | None], tolerance) -> None:
    if tolerance is None:
        return
    expected = outputs[0].astype(np.float64)
    for contender, other in zip(contenders, outputs, strict=True):
        if other is None:
            continue
        difference = np.linalg.norm(other - expected) / np.linalg.norm(expected)
        if not difference <= tolerance:
            raise RuntimeError(
                f"{contender.name} computes something else than {contenders[0].name}: relative difference "
                f"{difference:.2g}, at most {tolerance:.2g} expected; nothing was timed"
            )


class _Worker:
    """The process of one contender."""

    def __init__(self, contender: Contender):
        context = multiprocessing.get_context("spawn")
        self._name = contender.name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(contender, theirs))
        self._process.start()
        theirs.close()

    def receive(self):
        """The next answer. Raises: RuntimeError where the process failed, died or does not answer."""
        try:
            if not self._pipe.poll(_WAIT_SECONDS):
                raise RuntimeError(f"{self._name}: no answer within {_WAIT_SECONDS} s")
            answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self._name}: its process died (out of memory?)") from None
        if isinstance(answer, _Failure):
            raise RuntimeError(f"{self._name} failed:\n{answer.text}")
        return answer

    def take_turn(self, seconds: float) -> float:
        self._pipe.send(seconds)
        return self.receive()

    def stop(self) -> tuple[int, int]:
        """Ends the process; its peak memory in bytes, and the largest of those that it started."""
        self._pipe.send(None)
        return self.receive()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


@dataclasses.dataclass(frozen=True)
class _Failure:
    text: str


def _serve(contender: Contender, pipe) -> None:
    """The life of a contender's process: build, say so, take turns until told to stop."""
    try:
        try:
            program = contender.make(**contender.options)
        except UnavailableError as error:
            pipe.send((str(error), None, {}))
            pipe.recv()
            pipe.send((0, 0))
            return
        program.run()
        pipe.send(("", program.outputs, program.details))
        while (seconds := pipe.recv()) is not None:
            pipe.send(_turn(program, seconds) / program.repeats)
        if program.close is not None:
            program.close()
        users = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
        pipe.send(tuple(resource.getrusage(user).ru_maxrss * 1024 for user in users))
    except Exception:
        pipe.send(_Failure(traceback.format_exc()))


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
