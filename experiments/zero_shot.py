"""Evaluates a trained model on another dataset, none of whose clips it has seen: section 3.5 and table 10 of the paper.

    python -m experiments.zero_shot --workdir=workdir/ntu120_xsub_joint --target=data/utd_mhad
    python -m experiments.zero_shot --workdir=workdir/nw_ucla_joint --target=data/utd_mhad
    python -m experiments.zero_shot --workdir=workdir/published --config=configs/ntu120.py:xsub,joint \\
        --config.data.absent_body=zeros --target=data/utd_mhad

The workdir is that of a run or a bundle, whose own config is used, or of an import (`mmcl_jax.torch_weights import`),
which needs `--config` unless the import was told what its clips are; the third line is the published setting. The clips
are processed as the run's test clips were. Before that, their joints are mapped to the model's
(`mmcl_jax.data.layouts.joint_mapping`), and its center joint in the first frame becomes the origin. y must point up and
z away from the camera in both datasets, as in all records that data_prep writes.

The classes of the model that correspond to actions of the target are known for NTU RGB+D -> UTD-MHAD (the six actions
of the paper), NW-UCLA -> UTD-MHAD (four actions), and the reverse. For other datasets, supply the mapping in a JSON
file with `--labels`: {"action of the target": "class of the model", ...}. (For SYSU-Action, which the paper also uses,
none is published.) Clips of other actions are left out.

Top-1 and top-5 are reported over all classes of the model, as in the paper, and over only the mapped classes, beside
the accuracy of chance. If the checkpoint has an FRM and the target a text set, the scores are also refined by the text
with the fixed FRM (eq. 8).
"""

import argparse
import collections
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_prep import ntu, nw_ucla, utd_mhad
from experiments import scores
from experiments.launch import LaunchError, read_config, split_overrides
from experiments.markdown import markdown_table
from mmcl_jax import bundle, checkpoints
from mmcl_jax.config import Config
from mmcl_jax.data.layouts import joint_mapping, map_joints
from mmcl_jax.data.records import CONFIDENCE, PROTOCOLS, DatasetInfo, Records, RecordsError
from mmcl_jax.description import Description, count_bodies, describe
from mmcl_jax.evaluate import Evaluation
from mmcl_jax.metrics import classification_metrics
from mmcl_jax.models.mmcl import BACKBONE, FeatureRefinement
from mmcl_jax.run_log import IMPORTED, WorkdirError, check_evaluation, read_workdir_config
from mmcl_jax.runtime import backend
from mmcl_jax.runtime.errors import MMCLError, plain_errors
from mmcl_jax.runtime.files import read_text
from mmcl_jax.task import find_text_set, text_statistics, training_rows
from mmcl_jax.trained_model import TrainedModel, load_model

# (dataset of the model, dataset of the clips): action of the clips -> class of the model.
LABELS = {
    ("ntu", "utd_mhad"): {
        "wave": "hand waving",
        "arm cross": "cross arms",
        "basketball shoot": "shoot at the basket",
        "sit to stand": "standing up",
        "stand to sit": "sitting down",
        "squat": "squat down",
    },
    ("nw_ucla", "utd_mhad"): {
        "stand to sit": "sit down",
        "sit to stand": "stand up",
        "throw": "throw",
        "walk": "walk around",
    },
}
_SHOWN, _LONGEST = 10, 80  # names in a message, and letters of one
_PREPARED = (ntu.dataset_info(None), nw_ucla.dataset_info(None), utd_mhad.dataset_info(depth=False, folder=None))


class ZeroShotError(MMCLError, ValueError):
    """A checkpoint, target, label map or text that do not fit each other. The message says what would."""


@dataclasses.dataclass(frozen=True)
class Source:
    """What a model was trained for.

    Attributes:
      info: info of the records that it was trained on.
      class_names: classes of the model, by label.
      max_bodies: M of its clips.
      records: those records; None: not available.
    """

    info: DatasetInfo
    class_names: tuple[str, ...]
    max_bodies: int
    records: Records | None


class MappedRecords:
    """Clips of the target as the source's records would hold them.

    Attributes:
      rows: of the mapped actions, int64. All of them test, because no clip has trained the model.
      index: that of the target, with labels of the model.
    """

    def __init__(self, target: Records, source: Source, labels: Mapping[str, str], joint_rules: str = ""):
        """Raises: ZeroShotError, LayoutError if labels, joints, channels or units do not fit."""
        by_label = label_numbers(labels, target.info.class_names, source.class_names)
        self._target, self._source = target, source
        self._mapping = joint_mapping(target.info.skeleton_layout, source.info.skeleton_layout, joint_rules)
        _check_channels(target.info, source.info)
        self.rows = np.flatnonzero(np.isin(target.index["label"], list(by_label)))
        without = [target.info.class_names[label] for label in by_label if label not in target.index["label"]]
        if without:
            raise ZeroShotError(f"{target.root}: no clip of {', '.join(without)}; leave them out of the label map")
        label = np.full(len(target), -1)
        label[self.rows] = [by_label[number] for number in target.index["label"][self.rows].tolist()]
        self.index = {**target.index, "label": label}

    def skeleton(self, row: int) -> np.ndarray:
        """float32 `[M, T, V, C]` with the source's joints; the origin is its center joint in the first frame."""
        info = self._source.info
        clip, coordinates = self._target.skeleton(row)[: self._source.max_bodies], info.num_coordinates
        clip = map_joints(clip, self._mapping, coordinates)[..., : len(info.channels)]
        clip[..., :coordinates] -= clip[0, 0, info.skeleton_layout.centre, :coordinates]
        return clip.astype(np.float32)


def label_numbers(labels: Mapping[str, str], target: Sequence[str], source: Sequence[str]) -> dict[int, int]:
    """Label of the target -> label of the model. Raises: ZeroShotError for unknown names of classes."""
    for names, known, what in (
        (labels, target, "an action of the target"),
        (labels.values(), source, "a class of the model"),
    ):
        unknown = sorted(set(names) - set(known))
        if unknown:
            more = f" and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
            shown = ", ".join(repr(name[:_LONGEST]) for name in unknown[:_SHOWN]) + more
            raise ZeroShotError(f"label map: {shown} is not {what}: {', '.join(known)}")
    actions, classes = ({name: number for number, name in enumerate(names)} for names in (target, source))
    return {actions[action]: classes[name] for action, name in labels.items()}


def find_labels(source: str, target: str) -> dict[str, str]:
    """The known label mapping from one dataset's models to another's clips. Raises: ZeroShotError if there is none."""
    if (source, target) in LABELS:
        return LABELS[source, target]
    if (target, source) in LABELS:
        return {name: action for action, name in LABELS[target, source].items()}
    known = ", ".join(f"{trained} -> {tested}" for trained, tested in LABELS)
    raise ZeroShotError(
        f"no mapping from {target} to the classes of {source} is known (only {known}, and the reverse); supply a "
        'JSON file with --labels: {"action of the target": "class of the model", ...}'
    )


def read_labels(path: pathlib.Path) -> dict[str, str]:
    """Reads a mapping of labels. Raises: ZeroShotError, naming the file, if it is not one."""
    try:
        pairs = json.loads(read_text(path), object_pairs_hook=list)
    except (OSError, ValueError, RecursionError) as error:
        raise ZeroShotError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, tuple) for pair in pairs):
        raise ZeroShotError(f'{path}: expected {{"action of the target": "class of the model", ...}}, at least one')
    wrong = [action for action, name in pairs if not isinstance(name, str)]
    counts = collections.Counter(action for action, _ in pairs)
    twice = [action for action, count in counts.items() if count > 1]
    if wrong or twice:
        reason = f"the class of {wrong[0]!r} is not text" if wrong else f"{twice[0]!r} is repeated"
        raise ZeroShotError(f"{path}: {reason}")
    return dict(pairs)


def find_source(
    path: str, config: str | None, overrides: Sequence[tuple[str, str]], folder: str | None
) -> tuple[TrainedModel, Mapping[str, Any], Source]:
    """The model, all its parameters, and what it was trained for.

    Args:
      path: what `mmcl_jax.load_model` takes.
      config: of imported weights that were not told what their clips are; None: the model's own.
      overrides: of `config`.
      folder: the records that it was trained on; None: those that the config names, if they are present.

    Raises: LaunchError, WorkdirError, RecordsError and those of `load_model`.
    """
    located = bundle.locate(path)
    if config is None:
        if overrides:
            raise LaunchError(f"--config.{overrides[0][0]} without --config; the config of a run is used unchanged")
        model = load_model(path)
    else:
        read = Config.of(read_config(config, overrides))
        check_evaluation(located, read)
        model = _described(located, read, folder)
    params = bundle.read_all(located)[1]["params"] if bundle.is_bundle(located) else None
    params = checkpoints.read_variables(located)[1]["params"] if params is None else params
    root = pathlib.Path(folder or model.description.config.data.records)
    records = Records(root) if folder or (root / "info.json").exists() else None
    return model, params, Source(model.description.info, model.class_names, model.description.bodies, records)


def _described(workdir: pathlib.Path, config: Config, folder: str | None) -> TrainedModel:
    """The model of a workdir whose clips are those of records or of a known dataset.

    Raises: WorkdirError, RecordsError, and those of `TrainedModel`.
    """
    step, variables = checkpoints.read_variables(workdir)
    skeleton = {kind: tree[BACKBONE] for kind, tree in variables.items()}
    root, imported = pathlib.Path(folder or config.data.records), workdir / IMPORTED
    if folder or not imported.exists() or (root / "info.json").exists():
        try:
            described = describe(config, Records(root))
        except RecordsError as error:
            raise RecordsError(
                f"{error}. These records define joints and classes of the model; set --source to them"
            ) from error
        bodies = count_bodies(described.backbone(), skeleton, described.clip_shape[2:]) or described.bodies
        return TrainedModel(dataclasses.replace(described, bodies=bodies), skeleton, step=step, path=str(workdir))
    sizes = read_workdir_config(imported)["sizes"]
    for info in _PREPARED:
        protocol = PROTOCOLS[info.dataset].get(config.data.protocol)
        names = info.class_names[: protocol.num_classes] if protocol else ()
        if (len(names), info.joint_shape) == (sizes["num_classes"], (sizes["joints"], sizes["channels"])):
            known = dataclasses.replace(info, class_names=names)
            described = Description(config, known, sizes["bodies"], centered=info.dataset == "ntu")
            return TrainedModel(described, skeleton, step=step, path=str(workdir))
    raise WorkdirError(
        f"{imported}: a model of {sizes['num_classes']} classes, {sizes['joints']} joints and {sizes['channels']} "
        f"channels belongs to no known dataset with protocol {config.data.protocol!r}; set --source to its records"
    )


def _check_channels(target: DatasetInfo, source: DatasetInfo) -> None:
    """Raises: ZeroShotError if channels or units differ."""
    lacking = [name for name in source.channels if name not in target.channels]
    if lacking or source.num_coordinates != target.num_coordinates:
        raise ZeroShotError(
            f"the model's joints are {', '.join(source.channels)}, the target's {', '.join(target.channels)}"
            + ("; prepare the target with a confidence of 1 for every joint" if lacking == [CONFIDENCE] else "")
        )
    if target.units != source.units:
        raise ZeroShotError(
            f"the model's joints are in {source.units}, the target's in {target.units}; prepare the target in "
            "the model's units"
        )


@dataclasses.dataclass(frozen=True)
class Refinement:
    """The FRM of a checkpoint, and the text that it gets.

    Attributes:
      params: parameters of FeatureRefinement.
      text_set: text set of the target.
      statistics: mean and standard deviation by which the text is standardized, as in training; None: not standardized.
    """

    params: dict[str, Any]
    text_set: str
    statistics: tuple[np.ndarray, np.ndarray] | None

    def __call__(self, logits: np.ndarray, rows: np.ndarray, target: Records) -> np.ndarray:
        """Applies eq. 8 to scores `[N, K]` of the clips `rows`."""
        text = np.stack([target.text(int(row), self.text_set) for row in rows])
        if self.statistics is not None:
            text = (text - self.statistics[0]) / self.statistics[1]
        matrices = self.params["matrices"]
        module = FeatureRefinement(
            terms=len(matrices),
            hidden=self.params["phi_hidden"]["kernel"].shape[1],
            matrices="diagonal" if matrices.ndim == 2 else "full",
        )
        return np.asarray(module.apply({"params": self.params}, logits, text))


def find_refinement(
    params: Mapping[str, Any], config: Config, source: Source, target: Records, rows: np.ndarray, wanted: str
) -> Refinement:
    """The checkpoint's FRM with the target's text set `wanted`, which all clips `rows` must have.

    Raises: RecordsError, ZeroShotError, saying why the scores cannot be refined.
    """
    if "refinement" not in params:
        raise ZeroShotError("the checkpoint has no FRM")
    text_set = find_text_set(target, wanted)
    missing = target.clips_without(rows, text_set)
    if missing:
        raise ZeroShotError(f"{target.root}: {len(missing)} clips have no {text_set}, among them {missing[0]}")
    width, expected = target.text_width(text_set), params["refinement"]["phi_hidden"]["kernel"].shape[0]
    if width != expected:
        raise ZeroShotError(f"{target.root}: {text_set} has {width} numbers per clip, but the FRM takes {expected}")
    statistics = None
    if config.data.text_scaling == "standardise":
        if source.records is None:
            raise ZeroShotError(
                "the FRM was trained on text standardized over its training clips; set --source to their records"
            )
        rows = training_rows(config, source.records)
        trained = find_text_set(source.records, config.data.text)
        statistics = text_statistics(source.records, rows, trained)
    return Refinement(params["refinement"], text_set, statistics)


def evaluate_target(model: TrainedModel, records: MappedRecords) -> Evaluation:
    """Scores of the model on all mapped clips. Raises: PredictionError."""
    rows = records.rows
    names, labels = records.index["name"][rows], records.index["label"][rows]
    scores = model.logits([records.skeleton(int(row)).transpose(1, 0, 2, 3) for row in rows], names.tolist())
    return Evaluation(classification_metrics(scores, labels), names, scores, labels, model.class_names)


def accuracy_table(kinds: Mapping[str, np.ndarray], labels: np.ndarray) -> str:
    """Markdown: top-1 and top-5 of each kind of scores `[N, K]`, over all classes and over those that occur."""
    mapped, classes = np.unique(labels), next(iter(kinds.values())).shape[1]
    places = np.searchsorted(mapped, labels)
    rows = []
    for kind, values in kinds.items():
        over_all, over_mapped = (
            classification_metrics(values, labels),
            classification_metrics(values[:, mapped], places),
        )
        figures = (over_all.top1, over_all.top5, over_mapped.top1, over_mapped.top5)
        rows.append((kind, *(f"{100 * figure:.2f}" for figure in figures)))
    chance = [min(1, most / count) for count in (classes, len(mapped)) for most in (1, 5)]
    rows.append(("chance", *(f"{100 * value:.2f}" for value in chance)))
    scopes = (f"all {classes} classes", f"the {len(mapped)} mapped classes")
    columns = ("scores", *(f"top-{most} %, {scope}" for scope in scopes for most in (1, 5)))
    return markdown_table(columns, rows)


def class_table(evaluation: Evaluation, labels: Mapping[str, str]) -> str:
    """Markdown: each mapped class with its actions, number of clips, accuracy, and most frequent prediction."""
    mapped = np.unique(evaluation.labels)
    rows = []
    for label in mapped:
        name = evaluation.class_names[label]
        here = evaluation.scores[evaluation.labels == label]
        guesses, among = here.argmax(axis=1), mapped[here[:, mapped].argmax(axis=1)]
        counts = np.bincount(guesses, minlength=here.shape[1])
        most = evaluation.class_names[counts.argmax()]
        actions = " + ".join(action for action, known in labels.items() if known == name)
        figures = (100 * (guesses == label).mean(), 100 * (among == label).mean())
        taken = f"{most} ({counts.max()} of {len(here)})"
        rows.append((actions, name, len(here), *(f"{figure:.2f}" for figure in figures), taken))
    columns = (
        "action",
        "class of the model",
        "clips",
        "top-1 %, all classes",
        "top-1 %, mapped classes",
        "most frequent prediction",
    )
    return markdown_table(columns, rows)


def run(options: argparse.Namespace, overrides: Sequence[tuple[str, str]]) -> None:
    """Evaluates and prints the tables. Raises: the errors that `main` prints."""
    target = Records(options.target)
    model, params, source = find_source(options.workdir, options.config, overrides, options.source)
    config, step = model.description.config, model.step
    datasets = source.info.dataset, target.info.dataset
    labels = read_labels(options.labels) if options.labels else find_labels(*datasets)
    records = MappedRecords(target, source, labels, options.joints)
    rows = records.rows
    refinement = reason = None
    if options.text != "none":
        try:
            wanted = options.text or config.data.text
            refinement = find_refinement(params, config, source, target, rows, wanted)
        except MMCLError as error:
            if options.text:
                raise
            reason = error
    evaluation = evaluate_target(model, records)
    kinds = {"skeleton only": evaluation.scores}
    if refinement is not None:
        kinds[f"refined by {refinement.text_set}"] = refinement(evaluation.scores, rows, target)
    print(
        f"**{options.workdir}, step {step}, {config.data.stream}, on {len(evaluation.labels)} clips of {target.root} "
        f"({' -> '.join(datasets)})**\n\n{accuracy_table(kinds, evaluation.labels)}\n\n"
        f"{class_table(evaluation, labels)}"
    )
    if reason is not None:
        print(f"\nNot refined: {reason}.")
    if options.out:
        values = list(kinds.values())[-1]
        found = scores.Scores(options.out, evaluation.names, values, evaluation.labels, evaluation.class_names, step)
        scores.write_scores(options.out, found)
        print(f"\nscores, {list(kinds)[-1]}: {options.out}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="the workdir of a run or of an import, or a bundle"
    )
    parser.add_argument("--target", required=True, metavar="RECORDS", help="records of the other dataset")
    parser.add_argument("--config", metavar="FILE", help="config of imported weights (a run has its own)")
    parser.add_argument(
        "--source", metavar="RECORDS", help="records that the model was trained on (default: those in the config)"
    )
    parser.add_argument(
        "--labels",
        type=pathlib.Path,
        metavar="FILE.json",
        help="mapping from actions of the target to classes of the model",
    )
    parser.add_argument(
        "--joints",
        default="",
        metavar="RULES",
        help="rules for joints, such as 'neck = 0.5 head + 0.5 shoulder centre, ...'",
    )
    parser.add_argument(
        "--text", metavar="SET", help="text set of the target for the FRM; 'none' turns the refinement off"
    )
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE.npz", help="write the scores, refined if possible")
    options, rest = parser.parse_known_args(arguments)
    backend.tune_compiler()
    with plain_errors("interrupted"):
        if options.out:
            scores.check_out(options.out)
        run(options, split_overrides(rest))


if __name__ == "__main__":
    main()
