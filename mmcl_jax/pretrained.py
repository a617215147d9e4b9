"""Where `init_from` finds a trained model, and what a run takes of it."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
from absl import logging

from mmcl_jax import checkpoints
from mmcl_jax.config import Config, ModelConfig
from mmcl_jax.data.layouts import Layout
from mmcl_jax.data.records import Records, RecordsError
from mmcl_jax.initial_weights import Report, Source, fit
from mmcl_jax.models import BACKBONES, classifier_of
from mmcl_jax.models.mmcl import BACKBONE
from mmcl_jax.run_log import IMPORTED, read_workdir_config
from mmcl_jax.runtime.errors import ConfigError
from mmcl_jax.runtime.files import write_whole
from mmcl_jax.task import TrainingTask

# Keys that change what the arrays mean, and not their shapes.
_MEANING = (
    *(("data", key) for key in ("stream", "sampling", "centre", "absent_body")),
    *(("model", key) for key in ("graph", "center_of_mass", "k", "relatives")),
)
REPORT = "initial_weights.json"  # in the workdir: what a run took of the model that it started from


def read_source(path: pathlib.Path) -> Source:
    """The trained model in a workdir of a run or of an import.

    Joints and classes are those of the records that the run's config names; unknown if these cannot be read any more.

    Raises: CheckpointError, WorkdirError.
    """
    step, variables = checkpoints.read_variables(path)
    if (path / IMPORTED).exists():
        described = read_workdir_config(path / IMPORTED)
        model, sizes = described["model"], described["sizes"]
        return Source(
            str(path), variables, model["backbone"], model["base_channels"], bodies=sizes["bodies"], step=step
        )
    stored = read_workdir_config(path / "config.json")
    model = _stored_model(stored)
    layout = class_names = adjacency = bodies = None
    try:
        records = Records(stored["data"]["records"])
        layout, bodies = records.info.skeleton_layout, records.max_bodies
        class_names = records.class_names(stored["data"]["protocol"])
        adjacency = _adjacency(model, layout)
    except RecordsError as error:
        logging.warning("%s: its records cannot be read (%s); its joints and classes are unknown", path, error)
    return Source(
        str(path), variables, model.backbone, model.base_channels, layout, class_names, bodies, step, adjacency
    )


def _stored_model(stored: dict[str, Any]) -> ModelConfig:
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    return ModelConfig(**{key: value for key, value in stored["model"].items() if key in known})


def start_from(path: pathlib.Path, task: TrainingTask, initial: Any) -> tuple[dict, Report]:
    """The variables that a run starts from: those of the model in `path` where they fit, else the `initial` ones.

    Args:
      path: a folder that `read_source` reads.
      task: the run.
      initial: its variables of `MMCL` as they were drawn: `params` and `batch_stats`.

    Raises:
      CheckpointError, WorkdirError: the folder cannot be read.
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
                f"init_from {path}: model.{key} is {theirs!r} there, {ours!r} here; set --config.model.{key}={theirs}"
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
    report.notes.extend(_differences(path, config))
    if config.freeze == "backbone":
        _check_frozen(report, source)
    return variables, report


def _differences(path: pathlib.Path, config: Config) -> list[str]:
    """What the model was trained on that the shapes of its arrays do not show."""
    if not (path / "config.json").exists():
        return []
    theirs, ours = read_workdir_config(path / "config.json"), config.to_json()
    return [
        f"{part}.{key} was {theirs[part][key]!r} there, is {ours[part][key]!r} here"
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
