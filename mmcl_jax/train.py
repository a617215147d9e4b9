"""Training: from the clips of the records to checkpoints, evaluations and a log.

`train` opens the run, restores or creates its state, and takes its steps. The path of a clip, from
caller to callee:

    batches.train_batches    the batch of each step, read by `data.input_pipeline` or drawn from `data.resident`
    stepper.Stepper.take     the batch to the devices, one or several steps
    steps.train_step         transform, model, losses, gradients, update: a new `TrainState`
    _take_steps              after each dispatch: log, evaluate, save, stop
    checkpoints.save         the state on the disk
"""

import contextlib
import dataclasses
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from orbax.checkpoint import CheckpointManager

from mmcl_jax import best, checkpoints
from mmcl_jax.batches import check_room
from mmcl_jax.config import AnyConfig, Config
from mmcl_jax.description import DESCRIPTION, describe, write_description
from mmcl_jax.evaluate import Evaluator, keep, log_metrics
from mmcl_jax.metrics import NonFiniteScoresError
from mmcl_jax.models.mmcl import BACKBONE
from mmcl_jax.run_log import LOCK, RunLog, WorkdirError
from mmcl_jax.run_progress import Progress
from mmcl_jax.run_state import backbone_variables, check_weights, create_state, state_shapes, state_variables
from mmcl_jax.runtime import sharding
from mmcl_jax.runtime.errors import MMCLError
from mmcl_jax.runtime.locks import exclusive
from mmcl_jax.runtime.signals import StopSignal
from mmcl_jax.runtime.words import counted
from mmcl_jax.stepper import Stepper, dispatches
from mmcl_jax.steps import LOSSES, TrainState
from mmcl_jax.task import TrainingTask, build_training_task, learning_rates


class NonFiniteLossError(MMCLError, RuntimeError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training run works with. None of it changes; all that changes is in the `TrainState`.

    Attributes:
      task: the config and what it means: records, model, transform, optimizer.
      mesh: the devices.
      evaluator: of the validation and test parts.
      log: config.json, metrics.csv and TensorBoard in the workdir.
      manager: of the checkpoints in the workdir.
      workdir: the run's folder.
      began: when this start began, `time.perf_counter()`.
    """

    task: TrainingTask
    mesh: jax.sharding.Mesh
    evaluator: Evaluator
    log: RunLog
    manager: CheckpointManager
    workdir: pathlib.Path
    began: float

    @property
    def config(self) -> Config:
        """The run's configuration."""
        return self.task.config


def train(config: AnyConfig, workdir: pathlib.Path) -> None:
    """Trains, or resumes, the run of `config` in `workdir`; evaluates every epoch; reports the last.

    Raises:
      RecordsError, ConfigError, LayoutError: records and config do not fit.
      BundleError, DescriptionError, InitialWeightsError, TorchWeightsError: the weights to start from cannot be read
        or do not fit.
      WorkdirError: the workdir belongs to another config.
      NonFiniteLossError: the loss was not finite.
      CheckpointError: a checkpoint could not be written or read.
      ChildProcessError: a process that reads clips died.
      DistributedError: the processes of the run were started differently.
      LockedError: another process is training in the workdir.
    """
    workdir = pathlib.Path(workdir)
    with _alone(workdir):
        _train(open_run(config, workdir))


def _alone(workdir: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Lets one training at a time work in this workdir. Of several processes, the first holds the lock."""
    if jax.process_index():
        return contextlib.nullcontext()
    return exclusive(workdir / LOCK, what=f"training in {workdir}", remedy="use another --workdir")


def _train(run: Run) -> None:
    with run.log, contextlib.closing(run.evaluator):
        state, stepper = _begin(run)
        with contextlib.closing(stepper):
            run.log.resume(int(state.step))
            _announce(run, state)
            state = _take_steps(run, state, stepper)
        checkpoints.finish(run.manager)
        for part in run.evaluator.parts:
            evaluation = run.evaluator.evaluate(backbone_variables(state), part)
            log_metrics(evaluation, part, step=int(state.step))
            keep(evaluation, part, run.workdir, step=int(state.step), log=run.log)
        if state.best is not None and int(state.best["epoch"]) > 0:
            _evaluate_best(run)


def open_run(config: AnyConfig, workdir: pathlib.Path) -> Run:
    """Builds what training needs, checks that it fits, and claims the workdir. Raises: as `train`."""
    began = time.perf_counter()
    workdir = pathlib.Path(workdir)
    mesh = sharding.data_mesh()
    task = build_training_task(config)
    _check_done(task, workdir)
    evaluator = Evaluator(task.config, mesh, resident=task.config.data.device_resident)
    check_room(task, evaluator.rows, mesh)
    if checkpoints.latest_step(workdir) is None:
        check_weights(task)  # before config.json is written, so that a corrected command may use this workdir
    log = RunLog(workdir, task.config, task.skeleton.records.fingerprint())
    # A finished run keeps its description, to which a calibration may have been added.
    finished = checkpoints.latest_step(workdir) == task.num_steps and (workdir / DESCRIPTION).exists()
    if jax.process_index() == 0 and not finished:
        described = describe(task.config, task.skeleton.records)
        write_description(workdir, dataclasses.replace(described, training_clips=len(task.rows)))
    best.recover(workdir)
    return Run(task, mesh, evaluator, log, checkpoints.open_manager(workdir), workdir, began)


def _check_done(task: TrainingTask, workdir: pathlib.Path) -> None:
    """Raises WorkdirError if the run has gone beyond its last epoch already."""
    done = checkpoints.latest_step(workdir)
    if done is not None and done > task.num_steps and (workdir / "config.json").exists():
        epochs = -(-done // task.steps_per_epoch)
        raise WorkdirError(
            f"{workdir}: {counted(epochs, 'epoch is', 'epochs are')} trained or begun, num_epochs is "
            f"{task.config.num_epochs}; give it {epochs} or more, or use another --workdir"
        )


def _begin(run: Run) -> tuple[TrainState, Stepper]:
    """The state to go on from, and what takes the steps. A new run compiles its first program meanwhile."""
    if run.manager.latest_step() is not None or run.config.init_from or jax.process_count() > 1:
        state = restore_or_create_state(run)
        return state, Stepper(run.task, run.mesh, run.workdir, int(state.step))
    stepper = Stepper(run.task, run.mesh, run.workdir, 0)
    try:
        stepper.compile_ahead()
        return restore_or_create_state(run), stepper
    except BaseException:
        stepper.close()
        raise


def restore_or_create_state(run: Run) -> TrainState:
    """The newest checkpoint's state on every device of the mesh, or a new state if there is no checkpoint."""
    if run.manager.latest_step() is None:
        return sharding.replicate(create_state(run.task, run.workdir), run.mesh)
    everywhere, shapes = sharding.replicated(run.mesh), state_shapes(run.task)
    template = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), shapes)
    return checkpoints.restore_latest(run.manager, template)


def _announce(run: Run, state: TrainState) -> None:
    start = int(state.step)
    logging.info(
        "%d parameters, of which inference needs %d; %s, %s per epoch; %s",
        count_parameters(state.params),
        count_parameters(state.params[BACKBONE]),
        counted(len(run.task.rows), "training clip"),
        counted(run.task.steps_per_epoch, "step"),
        f"resuming at step {start} of {run.task.num_steps}" if start else "starting",
    )
    before = run.log.previous_epochs
    if start and before not in (None, run.config.num_epochs):
        logging.info("%s", describe_change(run.task, start, before))


def describe_change(task: TrainingTask, start: int, before: int) -> str:
    """What a run learns that goes on at step `start` with another `num_epochs` than `before`, in words."""
    config, epochs = task.config, task.config.num_epochs
    done = start // task.steps_per_epoch
    rates = [float(task.schedule(epoch * task.steps_per_epoch)) for epoch in range(done, epochs)]
    text = f"num_epochs was {before}, is {epochs}; epochs done: {done}."
    if not rates:
        return text
    if config.schedule == "step":
        shown = ", ".join(f"{rate:g}" for rate in dict.fromkeys(rates))
        return (
            f"{text} The learning rate of those left is {shown} (drop_epochs stay at {config.drop_epochs}); the result "
            f"is that of {counted(epochs, 'epoch')} at once"
        )
    old = learning_rates(dataclasses.replace(config, num_epochs=before), task.steps_per_epoch)
    return (
        f"{text} The cosine ends after {counted(epochs, 'epoch')} now, so the learning rate is {rates[0]:.3g} where it "
        f"would have been {float(old(start)):.3g}; the result is not that of {counted(epochs, 'epoch')} at once, which "
        "would have had other rates from the start"
    )


def _take_steps(run: Run, state: TrainState, stepper: Stepper) -> TrainState:
    """All steps that are left, with what happens between them. A signal to stop ends the process after a save."""
    config, steps_per_epoch = run.config, run.task.steps_per_epoch
    start = int(state.step)
    if _is_exhausted(run, state):
        best.note_stop(run.workdir, state.best, start // steps_per_epoch)
        return state
    best.forget_stop(run.workdir)
    with StopSignal(several=jax.process_count() > 1) as stop, Progress(run.task, start, run.began) as progress:
        for step, count in dispatches((start, run.task.num_steps), steps_per_epoch, config):
            state = stepper.take(state, count)
            done = step + count
            progress.advance(count, stepper.waited)
            ends_epoch = done % steps_per_epoch == 0
            if step == start or ends_epoch or done % config.log_every_steps == 0:
                progress.show(_log_steps(run, state))
            if step == start:
                progress.note_first_step()
            if ends_epoch:
                state = _end_epoch(run, state, progress.epoch_times())
                state = stepper.restart_totals(state)
                progress.begin_epoch()
            stopping = stop.stops(range(step + 1, done + 1))
            every = config.checkpoint_every_steps
            if ends_epoch or (every and done % every == 0) or stopping:
                _save(run, state)
            if stopping:
                checkpoints.finish(run.manager)
                logging.info("stopped by signal; saved at step %d; start again to resume", done)
                raise SystemExit(0)
            if ends_epoch and done < run.task.num_steps and _is_exhausted(run, state):
                best.note_stop(run.workdir, state.best, done // steps_per_epoch)
                break
    return state


def _is_exhausted(run: Run, state: TrainState) -> bool:
    """Whether the run is to end early, at the end of an epoch."""
    epoch, rest = divmod(int(state.step), run.task.steps_per_epoch)
    return not rest and best.is_exhausted(state.best, epoch, run.config.early_stopping_epochs)


def _log_steps(run: Run, state: TrainState) -> str:
    """Logs the means of the epoch so far; returns them for the progress bar. Raises: NonFiniteLossError."""
    done = int(state.step)
    return run.log.steps(done, _check_loss(run, state), float(run.task.schedule(done - 1)))


def _end_epoch(run: Run, state: TrainState, times: dict[str, float]) -> TrainState:
    """Evaluates, if it is time, writes the epoch's row of metrics.csv, and keeps the weights if they are the best.

    Raises: NonFiniteLossError, CheckpointError.
    """
    _check_parameters(run, state)
    done = int(state.step)
    epoch = done // run.task.steps_per_epoch
    totals = {name: float(value) for name, value in state.totals.items()}
    means = {f"train_{name}": totals[name] / totals["steps"] for name in (*LOSSES, "correct")}
    means["train_top1"] = means.pop("train_correct")
    row = {**times, "learning_rate": float(run.task.schedule(done - 1)), **means}
    if epoch % run.config.eval_every_epochs == 0 or epoch == run.config.num_epochs:
        for part in run.evaluator.parts:
            row |= _evaluate(run, state, part)
    run.log.epoch(epoch, done, row)
    if state.best is None or "validation_top1" not in row:
        return state
    better = best.improved(state.best, row["validation_top1"], epoch)
    if better is None:
        return state
    chosen = {
        kind: {**tree, BACKBONE: backbone_variables(state)[kind]} for kind, tree in state_variables(state).items()
    }
    best.keep(run.workdir, chosen, done)
    return state.replace(best=sharding.replicate(better, run.mesh))


def _evaluate(run: Run, state: TrainState, part: str) -> dict[str, float]:
    """Columns of metrics.csv for one part. Raises: NonFiniteLossError."""
    try:
        metrics = run.evaluator.evaluate(backbone_variables(state), part).metrics
    except NonFiniteScoresError as error:
        raise _non_finite(run, f"{part} after step {int(state.step) - 1}: {error}") from error
    names = ("loss", "top1", "top5", "mean_class") if len(metrics.confusion) > 5 else ("loss", "top1", "mean_class")
    return {f"{part}_{name}": getattr(metrics, name) for name in names}


def _evaluate_best(run: Run) -> None:
    """Evaluates the weights of the best epoch by validation; their scores are beside them."""
    folder = run.workdir / best.FOLDER
    step, variables = checkpoints.restore_skeleton(folder, run.evaluator.template())
    for part in run.evaluator.parts:
        evaluation = run.evaluator.evaluate(variables, part)
        log_metrics(evaluation, part, step=step, which="the best by validation")
        keep(evaluation, part, folder, step=step)


def _save(run: Run, state: TrainState) -> None:
    """Writes a checkpoint, unless something is not finite. Raises: NonFiniteLossError, CheckpointError."""
    _check_loss(run, state)
    _check_parameters(run, state)
    checkpoints.save(run.manager, state)


def _check_loss(run: Run, state: TrainState) -> dict[str, float]:
    """The totals on the host. Raises: NonFiniteLossError."""
    totals = {name: np.asarray(value).item() for name, value in state.totals.items()}
    if totals["first_bad_step"] >= 0:
        raise _non_finite(
            run, f"the loss of step {totals['first_bad_step']} is not finite", untrained=totals["first_bad_step"] == 0
        )
    return totals


def _check_parameters(run: Run, state: TrainState) -> None:
    """A loss can be finite while its gradients are not: such parameters are not saved. Raises: NonFiniteLossError."""
    if not _all_finite(state.params, state.batch_stats):
        raise _non_finite(run, f"parameters are not finite after step {int(state.step) - 1}")


def _non_finite(run: Run, what: str, untrained: bool = False) -> NonFiniteLossError:
    """The error; where the weights were `untrained`, no learning rate has had an effect yet."""
    checkpoints.finish(run.manager)
    if untrained:
        return NonFiniteLossError(
            f"{what}; stopped. These are the weights that training starts from, so the fault is in the clips of "
            f"{run.task.skeleton.records.root} (coordinates or text features that are far too large), or in "
            "--config.model.image_encoder_weights; mend these and start again"
        )
    kept = run.manager.latest_step()
    return NonFiniteLossError(
        f"{what}; stopped. The last good checkpoint, {f'step {kept}' if kept is not None else 'none yet'}, is kept in "
        f"{run.manager.directory}. Lower --config.learning_rate or lengthen --config.warmup_epochs, in another "
        "--workdir"
    )


@jax.jit
def _all_finite(*trees: Any) -> jax.Array:
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(trees)]))


def count_parameters(params: Any) -> int:
    """Number of values in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
