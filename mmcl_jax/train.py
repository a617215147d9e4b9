"""Training: a run of the steps of `steps.py`, with its checkpoints, evaluations and log."""

import contextlib
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from mmcl_jax import checkpoints, steps
from mmcl_jax.evaluate import Evaluator, report
from mmcl_jax.image_features import frozen_image_features, pretrained_variables
from mmcl_jax.metrics import NonFiniteScoresError
from mmcl_jax.models.mmcl import BACKBONE
from mmcl_jax.run_log import RunLog
from mmcl_jax.runtime import distributed, sharding
from mmcl_jax.runtime.backend import HASTY
from mmcl_jax.runtime.errors import MMCLError
from mmcl_jax.runtime.signals import StopSignal
from mmcl_jax.steps import LOSSES, TrainState
from mmcl_jax.task import (
    TrainingTask,
    build_training_task,
    check_room,
    image_feature_shape,
    resident_clips,
    train_batches,
)

if TYPE_CHECKING:
    from ml_collections import ConfigDict


class NonFiniteLossError(MMCLError, RuntimeError):
    """The loss became NaN or infinite; the last good checkpoint stays."""


def create_state(task: TrainingTask, config: "ConfigDict") -> TrainState:
    """Initial state from the config's seed; the image encoder starts from its weights file where one is given."""
    # Hundreds of small random draws, run once: optimising them would take four times as long to compile.
    state = jax.jit(functools.partial(random_state, task, config), compiler_options=HASTY)()
    if task.recipe.model.image_encoder is None or not config.model.image_encoder_weights:
        return state
    pretrained = pretrained_variables(config)
    return state.replace(
        params={**state.params, "image_encoder": pretrained["params"]},
        batch_stats={**state.batch_stats, "image_encoder": pretrained["batch_stats"]},
    )


def random_state(task: TrainingTask, config: "ConfigDict") -> TrainState:
    """Initial state, all of it random; under `jax.eval_shape`, the shapes of any state of the run."""
    records = task.skeleton.records
    clip = jnp.zeros((1, records.max_bodies, config.data.window, records.num_joints, records.num_channels))
    image = text = None
    if task.image_size is not None:
        image = jnp.zeros((1, task.image_size, task.image_size, 3))
        if task.recipe.model.image_encoder is None:
            image = jnp.zeros((1, *image_feature_shape(task, config)))
    if task.text_set is not None:
        text = jnp.zeros((1, records.text_width(task.text_set)))
    return steps.random_state(task.recipe, config.seed, (clip, image, text))


def train(config: "ConfigDict", workdir: pathlib.Path) -> None:
    """Trains, or resumes, the run of `config` in `workdir`; evaluates every epoch; reports the last.

    Raises:
      RecordsError, ValueError: records and config do not fit.
      WorkdirError: the workdir belongs to another config.
      NonFiniteLossError: the loss was not finite.
      CheckpointError: a checkpoint could not be written or read.
      ChildProcessError: a process that reads clips died.
      DistributedError: the processes of the run were not started alike.
    """
    began = time.perf_counter()
    workdir = pathlib.Path(workdir)
    mesh = sharding.data_mesh()
    task = build_training_task(config)
    evaluator = Evaluator(config, mesh, resident=config.data.device_resident)
    check_room(task, evaluator.rows, config, mesh)
    log = RunLog(workdir, config, task.skeleton.records.fingerprint())
    manager = checkpoints.open_manager(workdir)
    state = _restore_or_create(manager, task, config, mesh)
    start, end = int(state.step), config.num_epochs * task.steps_per_epoch
    log.resume(start)
    logging.info(
        "%d parameters, of which inference needs %d; %d training clips, %d steps an epoch; %s",
        count_parameters(state.params),
        count_parameters(state.params[BACKBONE]),
        len(task.rows),
        task.steps_per_epoch,
        f"resuming at step {start} of {end}" if start else "starting",
    )
    features = frozen_image_features(task, config, workdir) if config.model.image_encoder_frozen else None
    batches = train_batches(task, config, (start, end), features)
    clips = resident_clips(task, config, mesh, features) if start < end else None
    with contextlib.closing(log), contextlib.closing(evaluator):
        with contextlib.closing(batches):
            state = _loop(state, batches, clips, (start, end), began, task, config, mesh, evaluator, manager, log)
        checkpoints.finish(manager)
        skeleton = backbone_variables(state)
        for part in evaluator.parts:
            report(evaluator.evaluate(skeleton, part), part, workdir, step=int(state.step), log=log)


def _restore_or_create(manager, task, config, mesh) -> TrainState:
    """The newest checkpoint's state on every device of the mesh, or a new one where there is none."""
    everywhere = sharding.replicated(mesh)
    if manager.latest_step() is None:
        return sharding.replicate(create_state(task, config), mesh)
    shapes = jax.eval_shape(functools.partial(random_state, task, config))
    return checkpoints.restore_latest(
        manager, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)
    )


def backbone_variables(state: TrainState) -> dict:
    """The skeleton model's variables, all that inference needs."""
    return {
        "params": state.params[BACKBONE],
        "batch_stats": state.batch_stats[BACKBONE],
    }


def dispatches(span: tuple[int, int], steps_per_epoch: int, config: "ConfigDict") -> Iterator[tuple[int, int]]:
    """How the steps of `span` are divided into programs: yields (step, how many from it on).

    That is `steps_per_dispatch`, or one where fewer are left to a step after which something is logged, saved or
    evaluated: so there are two programs at most, and each is compiled at its first use.
    """
    step, end = span
    intervals = [steps_per_epoch, config.log_every_steps, config.checkpoint_every_steps]
    while step < end:
        ends = [(step // interval + 1) * interval for interval in intervals if interval]
        count = config.steps_per_dispatch if step + config.steps_per_dispatch <= min(*ends, end) else 1
        yield step, count
        step += count


class _Dispatcher:
    """Takes steps, one program for each number of them."""

    def __init__(self, task: TrainingTask, config: "ConfigDict", mesh, clips: dict[str, jax.Array] | None):
        """`clips`: those that are on the devices; None: batches bring theirs."""
        self._compile = functools.partial(
            steps.compile_step, task.recipe, config.seed, mesh, resident=clips is not None
        )
        self._mesh = mesh
        self._clips = () if clips is None else (clips,)
        self._programs: dict[int, Callable[..., TrainState]] = {}

    def __call__(self, state: TrainState, batches: list[dict[str, np.ndarray]]) -> TrainState:
        """The state after a step on each of the batches, which it gives away."""
        count = len(batches)
        joined = jax.tree.map(lambda *leaves: np.stack(leaves), *batches) if count > 1 else batches[0]
        batches.clear()
        arguments = state, sharding.place_batch(joined, self._mesh, stacked=count > 1), *self._clips
        if count not in self._programs:
            self._programs[count] = distributed.compile_together(self._compile(steps=count), *arguments)
        return self._programs[count](*arguments)


def _loop(state, batches, clips, span, began, task, config, mesh, evaluator, manager, log) -> TrainState:
    from tqdm import tqdm

    start, end = span
    once = {}  # what the next row of metrics.csv alone says
    take_steps = _Dispatcher(task, config, mesh, clips)
    fresh_totals = jax.jit(steps.empty_totals, out_shardings=sharding.replicated(mesh))
    epoch_began = time.perf_counter()
    bar = tqdm(total=end, initial=start, unit="step", smoothing=0.05, disable=jax.process_index() > 0)
    with StopSignal(several=jax.process_count() > 1) as stop, bar:
        for step, count in dispatches(span, task.steps_per_epoch, config):
            state = take_steps(state, list(itertools.islice(batches, count)))
            bar.update(count)
            done = step + count
            ends_epoch = done % task.steps_per_epoch == 0
            if done % config.log_every_steps == 0 or ends_epoch or step == start:
                bar.set_postfix_str(log.steps(done, _check_finite(state, manager), float(task.schedule(done - 1))))
            if step == start:
                once["first_step_seconds"] = time.perf_counter() - began
                logging.info("first step done after %.1f s: records, state, compilation", once["first_step_seconds"])
            if ends_epoch:
                _check_parameters(state, manager)
                epoch = done // task.steps_per_epoch
                clips = (done - max(start, done - task.steps_per_epoch)) * config.batch_size
                seconds = time.perf_counter() - epoch_began
                row = {"seconds": seconds, "clips_per_second": clips / seconds, **once}
                once.clear()
                _end_epoch(epoch, state, row, config, task, evaluator, manager, log)
                state = state.replace(totals=fresh_totals())
                epoch_began = time.perf_counter()
            every, stopping = config.checkpoint_every_steps, stop.stops(range(step + 1, done + 1))
            if ends_epoch or (every and done % every == 0) or stopping:
                _check_finite(state, manager)
                _check_parameters(state, manager)
                checkpoints.save(manager, state)
            if stopping:
                checkpoints.finish(manager)
                logging.info("stopped by signal; saved at step %d; start again to resume", done)
                raise SystemExit(0)
    return state


def _end_epoch(epoch: int, state, row: dict, config, task, evaluator, manager, log) -> None:
    totals = {name: float(value) for name, value in state.totals.items()}
    means = {f"train_{name}": totals[name] / totals["steps"] for name in (*LOSSES, "correct")}
    means["train_top1"] = means.pop("train_correct")
    row = {**row, "learning_rate": float(task.schedule(int(state.step) - 1)), **means}
    if epoch % config.eval_every_epochs == 0 or epoch == config.num_epochs:
        for part in evaluator.parts:
            try:
                metrics = evaluator.evaluate(backbone_variables(state), part).metrics
            except NonFiniteScoresError as error:
                raise _non_finite(f"{part} after step {int(state.step) - 1}: {error}", manager) from error
            row |= {f"{part}_{name}": getattr(metrics, name) for name in ("loss", "top1", "top5", "mean_class")}
    log.epoch(epoch, int(state.step), row)


def _check_finite(state: TrainState, manager) -> dict[str, float]:
    """The totals on the host. Raises: NonFiniteLossError."""
    totals = {name: np.asarray(value).item() for name, value in state.totals.items()}
    if totals["first_bad_step"] >= 0:
        raise _non_finite(f"the loss of step {totals['first_bad_step']} is not finite", manager)
    return totals


def _check_parameters(state: TrainState, manager) -> None:
    """A loss can be finite while its gradients are not: nothing broken is saved. Raises: NonFiniteLossError."""
    if not _all_finite(state.params, state.batch_stats):
        raise _non_finite(f"parameters are not finite after step {int(state.step) - 1}", manager)


def _non_finite(what: str, manager) -> NonFiniteLossError:
    checkpoints.finish(manager)
    kept = manager.latest_step()
    return NonFiniteLossError(
        f"{what}; stopped. The last good checkpoint, {f'step {kept}' if kept is not None else 'none yet'}, is kept in "
        f"{manager.directory}. Lower --config.learning_rate or lengthen --config.warmup_epochs, in another --workdir"
    )


@jax.jit
def _all_finite(*trees: Any) -> jax.Array:
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(trees)]))


def count_parameters(params: Any) -> int:
    """Number of values in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
