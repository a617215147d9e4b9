"""Where `init_from` finds a trained model, and what a run takes of it."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
from absl import logging

from mmcl_jax import bundle, checkpoints
from mmcl_jax.config import Config, ModelConfig
from mmcl_jax.data.layouts import Layout
from mmcl_jax.data.records import RecordsError
from mmcl_jax.description import read_description
from mmcl_jax.initial_weights import Report, Source, fit
from mmcl_jax.models import BACKBONES, classifier_of
from mmcl_jax.models.mmcl import BACKBONE
from mmcl_jax.run_log import IMPORTED, WorkdirError, read_workdir_config
from mmcl_jax.runtime.errors import ConfigError
from mmcl_jax.runtime.files import write_whole
from mmcl_jax.task import TrainingTask

# Keys that change what the arrays mean, and not their shapes.
_MEANING = (
    *(("data", key) for key in ("stream", "sampling", "centre", "absent_body")),
    *(("model", key) for key in ("graph", "center_of_mass", "k", "relatives")),
)
REPORT = "initial_weights.json"  # in the workdir: what a run took of the model that it started from


def read_source(path: str | pathlib.Path) -> Source:
    """The trained model in a workdir of a run or of an import, or in a bundle (`bundle.locate`).

    Joints and classes are unknown if nothing describes them: of an import that was not told, and of a run older than
    `model.json` whose records cannot be read any more.

    Raises: BundleError, CheckpointError, DescriptionError, WorkdirError.
    """
    folder = bundle.locate(path)
    if bundle.is_bundle(folder):
        description, variables, step = bundle.read_all(folder)
    else:
        step, variables = checkpoints.read_variables(folder)
        try:
            description = read_description(folder)
        except (RecordsError, WorkdirError) as error:
            return _unnamed(folder, variables, step, str(error))
    config, layout = description.config, description.info.skeleton_layout
    return Source(
        name=str(path),
        variables=variables,
        backbone=config.model.backbone,
        base_channels=config.model.base_channels,
        layout=layout,
        class_names=description.class_names,
        bodies=description.bodies,
        step=step,
        adjacency=_adjacency(config.model, layout),
        config=config.to_json(),
    )


def _unnamed(folder: pathlib.Path, variables: dict, step: int, fault: str) -> Source:
    """A model of which only the config, or the sizes that an import found, are known. Raises: WorkdirError."""
    imported = folder / IMPORTED
    stored = read_workdir_config(imported if imported.exists() else folder / "config.json")
    return Source(
        name=str(folder),
        variables=variables,
        backbone=stored["model"]["backbone"],
        base_channels=stored["model"]["base_channels"],
        bodies=stored.get("sizes", {}).get("bodies"),
        step=step,
        config=None if imported.exists() else stored,
        fault=fault,
    )


def start_from(path: str | pathlib.Path, task: TrainingTask, initial: Any) -> tuple[dict, Report]:
    """The variables that a run starts from: those of the model in `path` where they fit, else the `initial` ones.

    Args:
      path: what `read_source` reads.
      task: the run.
      initial: its variables of `MMCL` as they were drawn: `params` and `batch_stats`.

    Raises:
      BundleError, CheckpointError, DescriptionError, WorkdirError: the folder cannot be read.
      ConfigError: its backbone is another one, or too little of it fits for `freeze`.
      InitialWeightsError: nothing of it fits.
    """
    source, config, records = read_source(path), task.config, task.skeleton.records
    for key, theirs, ours in (
        ("backbone", source.backbone, config.model.backbone),
        ("base_channels", source.base_channels, config.model.base_channels),
    ):
        if theirs != ours:
            raise ConfigError(
                f"init_from {path}: model.{key} is {theirs!r} in the source, {ours!r} in this run; "
                f"set --config.model.{key}={theirs}"
            )
    layout = records.info.skeleton_layout
    variables, report = fit(
        source,
        jax.tree.map(np.asarray, initial),
        layout=layout,
        class_names=records.class_names(config.data.protocol),
        bodies=records.max_bodies,
        adjacency=_adjacency(config.model, layout),
        skip=("image_encoder",) if config.model.image_encoder_weights else (),
    )
    if source.fault:
        report.notes.insert(0, f"the joints and classes of {path} are unknown: {source.fault}")
    report.notes.extend(_differences(source, config))
    if config.freeze == "backbone":
        _check_frozen(report, source)
    return variables, report


def _differences(source: Source, config: Config) -> list[str]:
    """What the model was trained on that the shapes of its arrays do not show."""
    theirs, ours = source.config or {}, config.to_json()
    return [
        f"{part}.{key} was {theirs[part][key]!r} in the source, is {ours[part][key]!r} in this run"
        for part, key in _MEANING
        if theirs.get(part, {}).get(key, ours[part][key]) != ours[part][key]
    ]


def _adjacency(model: ModelConfig, layout: Layout) -> np.ndarray:
    """The topologies that the graph convolutions of a backbone start from, `[..., V, V]`."""
    backbone: Any = BACKBONES[model.backbone](1, layout, 3, model)
    return getattr(backbone, "adjacency", np.eye(layout.num_joints, dtype=np.float32))


def _check_frozen(report: Report, source: Source) -> None:
    """Raises ConfigError if arrays that will not train are new."""
    classifier = classifier_of(source.variables["params"][BACKBONE])
    parts = [name.split("/") for name in report.new]
    new = ["/".join(part) for part in parts if part[1] == BACKBONE and part[2] not in (classifier, "z_prior")]
    if new:
        raise ConfigError(
            f"freeze 'backbone': {len(new)} of its arrays would stay as they were drawn, because {report.source} does "
            f"not fit them, among them {new[0]} ({report.new[new[0]]}); train them with --config.freeze=none"
        )


def announce(report: Report, workdir: pathlib.Path | None) -> None:
    """Logs what was taken, and writes it into the workdir, if there is one. Of several processes the first does."""
    if jax.process_index():
        return
    for line in report.lines():
        logging.info("%s", line)
    if workdir is not None:
        write_whole(workdir / REPORT, json.dumps(report.to_json(), indent=1) + "\n")
