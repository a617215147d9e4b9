"""Evaluation from the skeleton only: jit-compiled, exact for any batch size and device count."""

import contextlib
import functools
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from mmcl_jax import checkpoints, plots
from mmcl_jax.batches import read_options
from mmcl_jax.config import AnyConfig, Config
from mmcl_jax.data import input_pipeline
from mmcl_jax.data.input_pipeline import Batch, Batches, Fields
from mmcl_jax.data.records import Records, RecordsError, RecordsView
from mmcl_jax.data.resident import load
from mmcl_jax.description import DESCRIPTION, Description, count_bodies, read_description, variable_shapes
from mmcl_jax.metrics import Metrics, classification_metrics
from mmcl_jax.models.bodies import fit_bodies
from mmcl_jax.predictor import Predictor, predictor_of
from mmcl_jax.run_log import RunLog, WorkdirError, check_evaluation, own_clips
from mmcl_jax.runtime import sharding
from mmcl_jax.runtime.arrays import read_arrays
from mmcl_jax.runtime.backend import HASTY, compilation_line
from mmcl_jax.runtime.files import whole_file
from mmcl_jax.runtime.words import counted
from mmcl_jax.steps import draw
from mmcl_jax.task import SkeletonTask, build_skeleton_task, open_records

_SHOWN_CLIPS = 10
_TOP = 5  # of so few classes, every clip is in the top 5
_MANY = 10**6  # more evaluations than any run has


class Evaluation(NamedTuple):
    """Metrics of one part of a dataset, and the scores that they were computed from.

    Attributes:
      metrics: of the scores.
      names: `[N]`, of the clips.
      scores: float32 `[N, K]`, logits.
      labels: int `[N]`.
      class_names: K of them.
    """

    metrics: Metrics
    names: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def eval_step(
    prepared: dict,
    batch: dict[str, jax.Array],
    resident: dict[str, jax.Array] | None = None,
    *,
    task: SkeletonTask,
    predictor: Predictor,
) -> jax.Array:
    """Logits `[N, K]` of a batch of raw clips, or of the `resident` clips that it names.

    `prepared` is the result of `predictor.prepare`.
    """
    batch = draw(batch, resident)
    unused_key = jax.random.key(0)
    clips = jax.vmap(lambda clip, frames, bodies: task.transform(clip, frames, bodies, unused_key))(
        batch["skeleton"], batch["frames"], batch["bodies"]
    )
    return predictor.logits(prepared, clips, batch["bodies"])


class Evaluator:
    """Evaluates the test part, and the validation part if the config holds one out, as often as it is asked.

    Attributes:
      task: the skeleton model and its records.
    """

    def __init__(
        self,
        config: AnyConfig,
        mesh: jax.sharding.Mesh,
        records: Records | RecordsView | None = None,
        *,
        resident: bool = False,
    ):
        """Builds the skeleton model and selects the clips. Close the evaluator after use.

        Args:
          config: the run's.
          mesh: the devices.
          records: read instead of those that the config names.
          resident: whether the clips of a part go to the devices at its first evaluation and stay there.

        Raises: RecordsError, ConfigError, LayoutError.
        """
        config = Config.of(config)
        sharding.check_batch_size("eval_batch_size", config.eval_batch_size)
        self.task = build_skeleton_task(config, train=False, records=records)
        self._mesh = mesh
        held_out = config.data.validation_subjects
        self._rows = {
            part: self.task.records.select(config.data.protocol, part, held_out)
            for part in (("validation", "test") if held_out else ("test",))
        }
        everywhere, over_clips = sharding.replicated(mesh), sharding.over_clips(mesh)
        self._clips: dict[str, dict[str, jax.Array]] | None = {} if resident else None
        self._streams: dict[str, Batches] = {}
        self._compiled: set[str] = set()  # parts whose programs have been compiled
        predictor = predictor_of(self.task.backbone, config)
        # Weights are arguments of both: every epoch evaluates with the programs of the first.
        self._prepare = jax.jit(
            functools.partial(predictor.prepare, clip_shape=self.task.clip_shape),
            in_shardings=everywhere,
            out_shardings=everywhere,
            compiler_options=HASTY,
        )
        inputs = (everywhere, over_clips, everywhere) if resident else (everywhere, over_clips)
        # Each device computes by itself: devices may hold different numbers of bodies.
        step = jax.shard_map(
            functools.partial(eval_step, task=self.task, predictor=predictor),
            mesh=mesh,
            in_specs=tuple(over.spec for over in inputs),
            out_specs=over_clips.spec,
            check_vma=False,
        )
        self._step = jax.jit(step, in_shardings=inputs, out_shardings=over_clips)

    def close(self) -> None:
        """Ends the processes that read clips for evaluations, if there are any."""
        for stream in self._streams.values():
            stream.close()

    @property
    def parts(self) -> tuple[str, ...]:
        """'validation' (if there is one) and 'test'."""
        return tuple(self._rows)

    @property
    def rows(self) -> np.ndarray:
        """int64 `[R]`: the clips of all parts, as rows of the records."""
        return np.concatenate(list(self._rows.values()))

    def template(self, bodies: int | None = None) -> Any:
        """Shapes, dtypes and shardings of the variables that `evaluate` takes, for restoring them.

        With `bodies`, of those of a model that was trained on clips of so many.
        """
        everywhere = sharding.replicated(self._mesh)
        most, *rest = self.task.clip_shape
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
            variable_shapes(self.task.backbone, (1, bodies or most, *rest)),
        )

    def evaluate(self, variables: Any, part: str) -> Evaluation:
        """Scores every clip of `part` once. Every process returns the same.

        Args:
          variables: `params` and `batch_stats` of the backbone, on every device.
          part: one of `parts`.

        Raises:
          NonFiniteScoresError: the scores of all clips are not finite.
          RecordsError: those of some clips are not.
        """
        rows, records = self._rows[part], self.task.records
        if not self._compiled or (self._clips is not None and part not in self._compiled):
            logging.info("%s", compilation_line("the evaluation", "half a minute"))
        self._compiled.add(part)
        prepared = self._prepare(variables)
        scores = []
        for batch, clips in self._batches(part):
            logits = self._step(prepared, sharding.place_batch(batch, self._mesh), *clips)
            scores.append((logits, batch["mask"]))
        gathered = [sharding.real_rows(logits, mask) for logits, mask in scores]
        scores = np.concatenate(gathered)
        self._check_clips(rows, scores)
        labels = records.index["label"][rows]
        return Evaluation(
            classification_metrics(scores, labels),
            records.index["name"][rows],
            scores,
            labels,
            records.class_names(self.task.config.data.protocol),
        )

    def _check_clips(self, rows: np.ndarray, scores: np.ndarray) -> None:
        """Raises RecordsError if only some clips have scores that are not finite: the weights are not at fault."""
        bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        if 0 < len(bad) < len(scores):
            names = ", ".join(self.task.records.index["name"][rows[bad[:_SHOWN_CLIPS]]].tolist())
            more = f" and {len(bad) - _SHOWN_CLIPS} more" if len(bad) > _SHOWN_CLIPS else ""
            raise RecordsError(
                f"{self.task.records.root}: the scores of {len(bad)} of {len(scores)} clips are not finite, those of "
                f"the others are. Look for coordinates that are far too large in {names}{more}, and prepare again "
                "without these clips"
            )

    def _batches(self, part: str) -> Iterator[tuple[Batch, tuple[dict[str, jax.Array], ...]]]:
        """Batches of a part, with the resident clips that they are drawn from, if there are any."""
        records, rows, config = self.task.records, self._rows[part], self.task.config
        size, fields, options = config.eval_batch_size, Fields(storage=config.data.storage), read_options(config)
        count = -(-len(rows) // size)
        if self._clips is None:
            stream = functools.partial(input_pipeline.eval_batches, records, rows, fields, options, batch_size=size)
            if not options.workers:
                batches = stream()
            else:  # workers take seconds to start: they stay, and read the next evaluation's first batches
                if part not in self._streams:
                    self._streams[part] = stream(passes=_MANY)
                batches = itertools.islice(self._streams[part], count)
            for batch in batches:
                yield batch, ()
            return
        if part not in self._clips:
            self._clips[part] = load(records, rows, fields, options, self._mesh, part_size=size)
        order = input_pipeline.eval_order(len(rows), size)
        for step in range(count):
            places, positions, mask = order(step)
            yield {"row": places.astype(np.int32), "position": positions, "mask": mask}, (self._clips[part],)


def evaluate_workdir(config: AnyConfig, workdir: str | pathlib.Path) -> dict[str, Evaluation]:
    """Evaluates the newest checkpoint of a run or an import. Neither builds nor loads FAM, FRM or the image encoder.

    Other records than the run's own are scored as the model sees them: with its classes, which are found by their
    names, and as many bodies as it was trained on. Their scores are written beside the run's own, never over them.

    Returns: the evaluation of each part: 'test', and 'validation' if the config holds one out.

    The metrics are printed before anything is written, so that a workdir that cannot be written to costs no result.

    Raises: RecordsError, ConfigError, LayoutError, WorkdirError, CheckpointError, NonFiniteScoresError.
    """
    config, workdir = Config.of(config), pathlib.Path(workdir)
    step, evaluations, suffix = _evaluate(config, workdir)
    for part, evaluation in evaluations.items():
        log_metrics(evaluation, part, step=step)
    for part, evaluation in evaluations.items():
        keep(evaluation, f"{part}{suffix}", workdir, step=step)
    return evaluations


def _evaluate(config: Config, workdir: pathlib.Path) -> tuple[int, dict[str, Evaluation], str]:
    """Step of the checkpoint, evaluation of each part, and what the names of their files end in."""
    records = open_records(config)
    foreign = _is_foreign(workdir, records, config)
    check_evaluation(workdir, config, other_records=foreign)
    mesh = sharding.data_mesh()
    shapes = checkpoints.skeleton_shapes(workdir)
    task = build_skeleton_task(config, train=False, records=records)
    trained = count_bodies(task.backbone, shapes, task.clip_shape[2:]) or records.max_bodies
    class_names = None
    if foreign and (workdir / DESCRIPTION).exists():
        described = read_description(workdir)
        class_names = described.class_names
        _check_kind(records, described)
    view = RecordsView(records, config.data.protocol, class_names, trained)
    evaluator = Evaluator(config, mesh, view)
    step, variables = checkpoints.restore_skeleton(workdir, evaluator.template(trained))
    if trained < view.max_bodies:
        logging.warning(
            "the model was trained on clips of at most %d bodies, these have up to %d: further bodies are normalized "
            "with the first one's statistics",
            trained,
            view.max_bodies,
        )
        variables = sharding.replicate(fit_bodies(variables, view.max_bodies, trained), mesh)
    with contextlib.closing(evaluator):
        evaluations = {part: evaluator.evaluate(variables, part) for part in evaluator.parts}
    return step, evaluations, _suffix(records) if foreign else ""


def _check_kind(records: Records, described: Description) -> None:
    """Raises RecordsError if other records than the run's hold joints of another kind than its model takes."""
    seen, wanted = records.info, described.info
    if described.config.data.camera.views != "none":
        return  # joints in space are looked at by a camera
    if (seen.skeleton_layout, seen.channels, seen.units) != (wanted.skeleton_layout, wanted.channels, wanted.units):
        raise RecordsError(
            f"{records.root}: {seen.skeleton_layout.num_joints} joints of {', '.join(seen.channels)} in {seen.units}; "
            f"the model takes {wanted.skeleton_layout.num_joints} joints of {wanted.dataset or 'its own data'}: "
            f"{', '.join(wanted.channels)} in {wanted.units}. experiments.zero_shot maps joints"
        )


def _is_foreign(workdir: pathlib.Path, records: Records, config: Config) -> bool:
    """Whether the workdir's own scores are of other clips than these."""
    own = own_clips(workdir)
    if own is not None:
        return own != records.fingerprint()
    scores = workdir / "scores_test.npz"  # of imported weights: the first evaluation is their own
    if not scores.exists():
        return False
    try:
        names = read_arrays(scores, ("names",))["names"].tolist()
    except (OSError, KeyError, ValueError):
        return False  # a damaged file is replaced
    return names != records.index["name"][records.select(config.data.protocol, "test")].tolist()


def _suffix(records: Records) -> str:
    """What the files of other records' scores are called in addition: the folder, and which clips it holds."""
    name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in records.root.resolve().name)
    return f"_on_{name[:40]}_{records.fingerprint()[:8]}"


def write_scores(
    path: pathlib.Path,
    names: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    step: int,
) -> None:
    """Writes a score file, whole or not at all: names `[N]`, scores `[N, K]`, labels `[N]`, K class names, step."""
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(
            file,
            names=names,
            scores=scores.astype(np.float32),
            labels=labels,
            class_names=np.array(class_names),
            step=step,
        )


def log_metrics(evaluation: Evaluation, part: str, *, step: int, which: str = "the last, not the best") -> None:
    """Prints the metrics of a part at a step, which is `which` of its run. Of several processes the first does."""
    metrics = evaluation.metrics
    if jax.process_index() == 0:
        logging.info(
            "%s, %s, skeleton only, step %d (%s): top-1 %.2f %%,%s mean class %.2f %%, loss %.4f",
            part,
            counted(metrics.clips, "clip"),
            step,
            which,
            100 * metrics.top1,
            f" top-5 {100 * metrics.top5:.2f} %," if len(metrics.confusion) > _TOP else "",
            100 * metrics.mean_class,
            metrics.loss,
        )


def keep(evaluation: Evaluation, part: str, workdir: pathlib.Path, *, step: int, log: RunLog | None = None) -> None:
    """Writes scores and confusion matrix into the workdir, and prints the paths of the files.

    Raises: WorkdirError if they cannot be written.
    """
    if jax.process_index():
        return
    workdir = pathlib.Path(workdir)
    scores, picture = workdir / f"scores_{part}.npz", workdir / f"confusion_{part}.png"
    try:
        write_scores(scores, evaluation.names, evaluation.scores, evaluation.labels, evaluation.class_names, step)
        plots.confusion_matrix(evaluation.metrics.confusion, evaluation.class_names, picture)
    except OSError as error:
        raise WorkdirError(
            f"{workdir}: scores and confusion matrix of {part} cannot be written ({error}). The metrics above are "
            "complete; for the files, make room or make the workdir writable, or evaluate a copy of it"
        ) from error
    if log is not None:
        log.image(f"{part}/confusion", picture, step)
    places = {"scores": scores, "confusion matrix": picture, "checkpoint": checkpoints.folder(workdir) / str(step)}
    if (workdir / "metrics.csv").exists():
        places["metrics"] = workdir / "metrics.csv"
    for what, path in places.items():
        logging.info("%s: %s", what, path)
