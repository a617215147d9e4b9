"""What takes the steps of a run: the next batches, the program for them, and the new state."""

import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import jax
import numpy as np
from absl import logging

from mmcl_jax import steps
from mmcl_jax.batches import resident_clips, train_batches
from mmcl_jax.config import Config
from mmcl_jax.image_features import frozen_image_features
from mmcl_jax.models.groups import group_count
from mmcl_jax.packing import capacities_of
from mmcl_jax.run_state import state_shapes
from mmcl_jax.runtime import distributed, sharding
from mmcl_jax.runtime.backend import compilation_line, quiet_compiler
from mmcl_jax.steps import TrainState
from mmcl_jax.task import TrainingTask


class Stepper:
    """Takes the steps of a run, in order, one or several at once.

    There is a program for each number of steps and, if absent bodies are computed once, of bodies. Each is compiled at
    its first use, the first one before there is a state.
    """

    def __init__(self, task: TrainingTask, mesh: jax.sharding.Mesh, workdir: pathlib.Path, start: int):
        """Prepares the batches from step `start` on, and puts resident clips on the devices. Close it after use.

        Features of a frozen image encoder are kept in `workdir`.
        """
        end = task.num_steps
        image_features = frozen_image_features(task, workdir)
        clips = resident_clips(task, mesh, image_features) if start < end else None
        self._task, self._mesh = task, mesh
        self._clips = () if clips is None else (clips,)
        self._batches = train_batches(task, (start, end), image_features)
        self._next = start
        self._ahead: Future | None = None
        self._groups = group_count(task.config.batch_size, task.config.model.batch_norm_group_size)
        self._capacities, packed = capacities_of(task, mesh.size)
        logging.info("%s", packed)
        self._compile = functools.partial(
            steps.compile_step, task.recipe, task.config.seed, mesh, resident=clips is not None
        )
        self._programs: dict[tuple[int, int | None], Callable[..., TrainState]] = {}
        self.waited = 0.0  # seconds, for programs to be compiled
        self._empty_totals = jax.jit(steps.empty_totals, out_shardings=sharding.replicated(mesh))

    def take(self, state: TrainState, count: int) -> TrainState:
        """The state after the next `count` steps; `state` is donated."""
        began, known = time.perf_counter(), len(self._programs) if self._ahead is None else 0
        prepared, self._ahead = self._ahead, None
        program, batches = self._prepare(state, count) if prepared is None else prepared.result()
        if len(self._programs) > known:
            self.waited += time.perf_counter() - began
        return program(state, batches, *self._clips)

    def compile_ahead(self) -> None:
        """Begins to compile the program of the first steps, in a thread, before there is a state."""
        task, span = self._task, (self._next, self._task.num_steps)
        _, count = next(dispatches(span, task.steps_per_epoch, task.config))
        self._ahead = ThreadPoolExecutor(1).submit(self._prepare, state_shapes(task), count)

    def _prepare(self, state: TrainState, count: int) -> tuple[Callable[..., TrainState], dict[str, jax.Array]]:
        """The program for the next `count` steps of states like `state`, and their batches."""
        batches = list(itertools.islice(self._batches, count))
        joined = jax.tree.map(lambda *leaves: np.stack(leaves), *batches) if count > 1 else batches[0]
        del batches  # so that the host does not hold them twice
        placed = sharding.place_batch(joined, self._mesh, stacked=count > 1)
        capacity = None if self._capacities is None else self._capacities.at(self._next, count)
        self._next += count
        if (count, capacity) not in self._programs:
            self._programs[count, capacity] = self._compiled(count, capacity, (state, placed, *self._clips))
        return self._programs[count, capacity], placed

    def _compiled(self, count: int, capacity: int | None, arguments: tuple) -> Callable[..., TrainState]:
        began = time.perf_counter()
        which = ("" if count == 1 else f" ({count} at once)") + (
            "" if capacity is None else f" for {capacity * self._groups} bodies"
        )
        logging.info("%s", compilation_line(f"the training step{which}", "a minute"))
        with quiet_compiler():
            program = distributed.compile_together(self._compile(steps=count, capacity=capacity), *arguments)
        logging.info("compiled, or read, in %.1f s", time.perf_counter() - began)
        return program

    def restart_totals(self, state: TrainState) -> TrainState:
        """`state` at the start of an epoch: its totals are empty."""
        return state.replace(totals=self._empty_totals())

    def close(self) -> None:
        """Ends the threads or processes that read batches."""
        if self._ahead is not None and not self._ahead.cancel() and not self._ahead.done():
            logging.info("waiting for the compiler, which cannot be interrupted")
            wait([self._ahead])
        self._batches.close()


def dispatches(span: tuple[int, int], steps_per_epoch: int, config: Config) -> Iterator[tuple[int, int]]:
    """Divides the steps of `span` into programs: yields (first step, number of steps).

    That is `steps_per_dispatch`, or one if fewer are left before a step after which something is logged, saved or
    evaluated. So there are at most two numbers of steps.
    """
    step, end = span
    intervals = [steps_per_epoch, config.log_every_steps, config.checkpoint_every_steps]
    while step < end:
        ends = [(step // interval + 1) * interval for interval in intervals if interval]
        count = config.steps_per_dispatch if step + config.steps_per_dispatch <= min(*ends, end) else 1
        yield step, count
        step += count
