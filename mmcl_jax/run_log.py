"""A run's log in its workdir: config, versions, metrics.csv (a row per epoch), log.txt (what is said), TensorBoard.

It also checks whether a workdir belongs to a config.
"""

import csv
import datetime
import importlib.metadata
import itertools
import json
import math
import os
import pathlib
import platform
import shutil
import time
import uuid
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging

import mmcl_jax
from mmcl_jax.config import AnyConfig, Config
from mmcl_jax.runtime.distributed import check_same
from mmcl_jax.runtime.errors import ConfigError, MMCLError
from mmcl_jax.runtime.files import check_regular, read_json, whole_file, write_whole
from mmcl_jax.runtime.messages import MessageFile
from mmcl_jax.runtime.version import commit
from mmcl_jax.runtime.words import counted

# Keys that change neither the batches nor, except for rounding, the result: a resumed run may differ in them.
_FREE = (
    "data.records",
    "data.threads",
    "data.prefetch",
    "data.workers",
    "data.host_memory_mb",
    "data.device_resident",
    "pack_absent_bodies",
    "steps_per_dispatch",
    "eval_batch_size",
    "checkpoint_every_steps",
    "log_every_steps",
    "wandb_project",
    # When the run ends. What a longer one learns is up to the schedule, which the log says.
    "num_epochs",
    "early_stopping_epochs",
)
# Keys on which the scores of a checkpoint depend.
_EVALUATED = (
    "data.protocol",
    "data.validation_subjects",
    "data.stream",
    "data.window",
    "data.sampling",
    "data.test_crop",
    "data.centre",
    "data.absent_body",
    "data.storage",
    "data.camera.views",
    "data.camera.test_yaw",
    "data.camera.test_pitch",
    "data.camera.test_distance",
    "model.backbone",
    "model.base_channels",
    "model.graph",
    "model.center_of_mass",
    "model.k",
    "model.relatives",
)
# Those of them that say which clips take part.
_DIVISION = ("data.protocol", "data.validation_subjects")
# Describes weights imported from elsewhere; its keys have the config's names.
IMPORTED = "imported.json"
LOCK = "training.lock"  # in the workdir, while a training or an import is at work there
EARLY_STOP = "early_stop.json"  # in the workdir of a run that ended before its last epoch, for want of a better one
_IMPORTED_KEYS = ("model.backbone", "model.base_channels")
_SHOWN_WITHIN_SECONDS = 60
_SHARES = ("top1", "top5", "mean_class")  # ends of columns that are shown in percent
_BEST = "best_test_top1_so_far_never_used"


class WorkdirError(MMCLError, RuntimeError):
    """The workdir belongs to another run, or cannot be read."""


class RunLog:
    """Writes what happens in a run. With several processes, only the first writes.

    Attributes:
      previous_epochs: `num_epochs` at the run's previous start; None at its first.
    """

    def __init__(self, workdir: pathlib.Path, config: AnyConfig, clips: str):
        """Claims the workdir for this config and these clips (`Records.fingerprint`).

        Raises:
          WorkdirError: it was made with another config or other clips.
          DistributedError: the processes differ in config or clips, or do not share the workdir's disk.
        """
        self._workdir = pathlib.Path(workdir)
        self._first = jax.process_index() == 0
        self._rows: list[dict[str, str]] = []
        self._writer: Any = None  # TensorBoard's
        self._wandb: Any = None  # the run of Weights & Biases
        self._messages: MessageFile | None = None
        self._workdir.mkdir(parents=True, exist_ok=True)
        resolved = {**Config.of(config).to_json(), "clips": clips}
        path = self._workdir / "config.json"
        if (self._workdir / IMPORTED).exists():
            raise WorkdirError(
                f"{self._workdir}: holds imported weights, which stay as they are; train from them in another folder, "
                f"with --config.init_from={self._workdir} --workdir=NEW"
            )
        if not path.exists() and (self._workdir / "checkpoints").exists():
            raise WorkdirError(f"{self._workdir}: holds checkpoints but no config.json; use another --workdir")
        _check_config(path, resolved, lambda key: key not in _FREE)
        self.previous_epochs: int | None = None
        if path.exists():
            self.previous_epochs = read_workdir_config(path).get("num_epochs")
        counted = {key: value for key, value in _flat(resolved).items() if key not in _FREE}
        check_same("config and clips", json.dumps(counted, sort_keys=True))
        if self._first:
            write_whole(path, json.dumps(resolved, indent=2, sort_keys=True) + "\n")
        check_same("config and clips are written", "")
        _wait_for(path)
        check_same(str(path), path.read_text() if path.exists() else "no such file")

    def resume(self, step: int) -> None:
        """Starts logging after `step` steps. Rows of epochs that a killed run logged but did not save are dropped."""
        if not self._first:
            return
        version = _version()
        started = ", ".join(f"{name} {value}" for name, value in version.items())
        self._keep_messages().say(f"start at step {step}: {started}")
        path = self._workdir / "metrics.csv"
        if path.exists():
            rows, damage = _read_rows(path)
            if damage:
                kept = _keep_copy(path)
                logging.warning(
                    "%s: damaged (%s); %d rows are read and go on, the file as it was is %s",
                    path,
                    damage,
                    len(rows),
                    kept,
                )
            self._rows = [row for row in rows if int(row["step"]) <= step]
            lacking = _lacking(self._rows, step)
            if lacking:
                logging.warning("%s: the rows of %s before step %d are missing", path, counted(lacking, "epoch"), step)
            self._write_rows()
        elif step:
            logging.warning("%s: missing; there are no rows of the epochs before step %d", path, step)
        self._note_start(step, version)
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(self._workdir / "tensorboard"), purge_step=step + 1 if step else None)
        self._start_wandb()

    def steps(self, step: int, totals: dict[str, float], learning_rate: float) -> str:
        """Logs the running means of the epoch after `step` steps; returns them as a few words for the progress bar.

        Args:
          step: steps done.
          totals: of `TrainState`.
          learning_rate: of the last step.
        """
        count = max(totals["steps"], 1)
        loss, correct = totals["loss"] / count, totals["correct"] / count
        if self._writer is not None:
            self._writer.add_scalar("step/epoch_mean_loss", loss, step)
            self._writer.add_scalar("step/learning_rate", learning_rate, step)
        if self._wandb is not None:
            self._wandb.log({"step/epoch_mean_loss": loss, "step/learning_rate": learning_rate}, step=step)
        shown = f"loss {loss:.3f}, top-1 {100 * correct:.1f} %, lr {learning_rate:g}"
        if self._messages is not None:
            self._messages.say(f"step {step}: {shown}")
        return shown

    def epoch(self, epoch: int, step: int, row: dict[str, float]) -> None:
        """Logs one epoch, the row of metrics.csv. The best test accuracy so far has a name that says it is never used.

        Args:
          epoch: epochs done.
          step: steps done.
          row: values by column.
        """
        if not self._first:
            return
        if "test_top1" in row:
            before = [float(old[_BEST]) for old in self._rows if old.get(_BEST)]
            row = {**row, _BEST: max([row["test_top1"], *before])}
        self._rows.append({"epoch": str(epoch), "step": str(step), **{k: f"{v:.6g}" for k, v in row.items()}})
        self._write_rows()
        for name, value in row.items():
            self._writer.add_scalar(f"epoch/{name}", value, step)
        self._writer.flush()
        if self._wandb is not None:
            self._wandb.log({f"epoch/{name}": value for name, value in row.items()}, step=step)
        terms = {name: value for name, value in row.items() if value and not name.startswith(_BEST)}
        if terms.get("train_classification") == terms.get("train_loss"):
            terms.pop("train_classification", None)  # the only term of the loss
        shown = ", ".join(
            f"{name} {100 * value:.2f} %" if name.endswith(_SHARES) else f"{name} {value:.4g}"
            for name, value in terms.items()
        )
        line = f"epoch {epoch} step {step}: {shown}"
        print(f"\n{line}", flush=True)
        if self._messages is not None:
            self._messages.say(line)

    def image(self, name: str, path: pathlib.Path, step: int) -> None:
        """Adds a PNG to TensorBoard."""
        if self._writer is not None:
            from PIL import Image

            self._writer.add_image(name, np.array(Image.open(path).convert("RGB")), step, dataformats="HWC")

    def __enter__(self) -> "RunLog":
        if self._first:
            self._keep_messages()
        return self

    def _keep_messages(self) -> MessageFile:
        if self._messages is None:
            self._messages = MessageFile(self._workdir / "log.txt")
        return self._messages

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: Any) -> None:
        """Keeps the message of an error and closes the log."""
        if self._messages is not None and error is not None and not isinstance(error, SystemExit):
            self._messages.say(f"ended by {kind.__name__ if kind else ''}: {error}")
        self.close()

    def close(self) -> None:
        """Flushes TensorBoard and ends `log.txt`."""
        if self._messages is not None:
            self._messages.close()
            self._messages = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def _start_wandb(self) -> None:
        """Starts the run at Weights & Biases, or goes on with it: its name there is in `wandb_run.txt`."""
        config = read_workdir_json(self._workdir / "config.json")
        if not config.get("wandb_project"):
            return
        import wandb  # pyright: ignore[reportMissingImports]  optional

        path = self._workdir / "wandb_run.txt"
        if not path.exists():
            write_whole(path, f"{self._workdir.absolute().name}-{uuid.uuid4().hex[:8]}\n")
        try:
            self._wandb = wandb.init(
                project=config["wandb_project"],
                id=path.read_text().strip(),
                name=self._workdir.absolute().name,
                dir=str(self._workdir),
                config=config,
                resume="allow",
            )
        except wandb.Error as error:
            raise ConfigError(
                f"wandb_project {config['wandb_project']!r}: Weights & Biases cannot be used ({error}). Log in with "
                "`wandb login`, or log to the workdir only with WANDB_MODE=offline"
            ) from error

    def _note_start(self, step: int, version: dict[str, str]) -> None:
        """Adds this start to version.json: several versions may have contributed to a resumed run."""
        path = self._workdir / "version.json"
        try:
            starts = read_json(path)["starts"] if path.exists() else []
            if not isinstance(starts, list):
                raise TypeError(f"starts is {type(starts).__name__}, expected a list")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WorkdirError(f"{path}: unreadable ({error!r}); restore or remove it") from error
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        starts.append({"step": step, "time": now, **version})
        write_whole(path, json.dumps({"starts": starts}, indent=2) + "\n")

    def _write_rows(self) -> None:
        columns = list(dict.fromkeys(name for row in self._rows for name in row)) or ["epoch", "step"]
        path = self._workdir / "metrics.csv"
        with whole_file(path) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._rows)


def _read_rows(path: pathlib.Path) -> tuple[list[dict[str, str]], str]:
    """The rows of a metrics.csv that can be read, and what is wrong with the others; empty if nothing is."""
    rows, damage = [], ""
    try:
        check_regular(path)
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.DictReader(file)
            columns = set(reader.fieldnames or ())
            if not columns >= {"epoch", "step"}:
                damage = "no line of column names"
            for row in reader:
                if _is_row(row):
                    rows.append(row)
                else:
                    damage = damage or f"line {reader.line_num}"
        if not rows and columns - {"epoch", "step"}:
            damage = damage or "names of columns without rows"
    except (csv.Error, ValueError) as error:
        damage = damage or str(error)
    return rows, damage


def _lacking(rows: list[dict[str, str]], step: int) -> int:
    """How many epochs that ended by `step` have no row; every epoch of a run has as many steps as the first."""
    sizes = {int(row["step"]) // int(row["epoch"]) for row in rows if int(row["epoch"])} - {0}
    return max(0, step // min(sizes) - len(rows)) if sizes else 0


def _is_row(row: dict[str, str]) -> bool:
    """Whether a row has a number, or nothing, in each column, and no cell too few or too many."""
    try:
        numbers = [float("0" if cell == "" else cell) for cell in row.values()]
        return int(row["epoch"]) >= 0 <= int(row["step"]) and not any(map(math.isinf, numbers))
    except (KeyError, TypeError, ValueError):
        return False


def _keep_copy(path: pathlib.Path) -> pathlib.Path:
    """Copies a damaged file beside itself, under a name that is free."""
    free = (path.with_name(f"{path.name}.damaged{number}") for number in itertools.count(1))
    copy = next(candidate for candidate in free if not candidate.exists())
    shutil.copyfile(path, copy)
    return copy


def _wait_for(path: pathlib.Path) -> None:
    """Network file systems may show another host's new file late."""
    deadline = time.monotonic() + _SHOWN_WITHIN_SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def own_clips(workdir: pathlib.Path) -> str | None:
    """`Records.fingerprint` of the clips of a run; None for imported weights. Raises: WorkdirError."""
    path = pathlib.Path(workdir) / "config.json"
    return read_workdir_config(path).get("clips") if path.exists() else None


def check_evaluation(workdir: pathlib.Path, config: AnyConfig, *, other_records: bool = False) -> None:
    """Raises WorkdirError if `config` would evaluate a run, or an imported model, differently from its own config.

    `other_records`: the clips are not the run's own, and may be divided otherwise.
    """
    now = Config.of(config).to_json()
    free = _DIVISION if other_records else ()
    _check_config(pathlib.Path(workdir) / "config.json", now, lambda key: key in _EVALUATED and key not in free)
    _check_config(pathlib.Path(workdir) / IMPORTED, now, _IMPORTED_KEYS.__contains__)


def check_training(workdir: pathlib.Path, config: AnyConfig) -> None:
    """Raises WorkdirError if `config` would not resume the run in `workdir`. The clips are not compared."""
    now = Config.of(config).to_json()
    _check_config(pathlib.Path(workdir) / "config.json", now, lambda key: key not in (*_FREE, "clips"))


def read_workdir_json(path: pathlib.Path) -> Any:
    """Contents of a JSON file of a workdir, unchecked. Raises: WorkdirError."""
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path}: unreadable ({error}); restore it or use another workdir") from error


def read_workdir_config(path: pathlib.Path) -> dict[str, Any]:
    """Contents of `config.json` or `imported.json` of a workdir. Raises: WorkdirError if it is of something else."""
    stored = read_workdir_json(path)
    described = _flat(stored) if isinstance(stored, dict) else {}
    if not isinstance(described.get("model.backbone"), str):
        raise WorkdirError(f"{path}: holds no config (it names no model.backbone); restore it or use another workdir")
    return stored


def _check_config(path: pathlib.Path, config: dict[str, Any], matters: Callable[[str], bool]) -> None:
    """Raises WorkdirError if a key that matters has another value in the file `path`, if that exists.

    A workdir older than a key of `mmcl_jax.config` uses the key's default, which gives what runs did before
    the key existed, except for rounding; the log says so.
    """
    if not path.exists():
        return
    stored, now = _flat(read_workdir_config(path)), _flat(config)
    defaults = _flat(Config().to_json())
    newer = {key: defaults[key] for key in sorted(now.keys() & defaults.keys() - stored.keys()) if matters(key)}
    stored |= newer
    note = dict.fromkeys(newer, " (the default: the workdir is older than this key)")
    differing = [
        f"{key}: {stored.get(key)!r} in the workdir{note.get(key, '')}, {now.get(key)!r} now"
        for key in sorted(stored.keys() | now.keys())
        if stored.get(key) != now.get(key) and matters(key)
    ]
    if differing:
        is_empty = not any((path.parent / "checkpoints").glob("[0-9]*"))
        raise WorkdirError(
            f"{path.parent} was made by another config: " + "; ".join(differing) + ". Use another --workdir, or that "
            "config" + ("; or remove this workdir, which holds no checkpoint" if is_empty else "")
        )
    if newer:
        used = ", ".join(f"{key}={value!r}" for key, value in newer.items())
        logging.info("%s is older than these keys; their defaults are used: %s", path, used)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _version() -> dict[str, str]:
    """Commit (if the code is a git checkout), packages and devices of this start."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "mmcl_jax": mmcl_jax.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "cpu_count": str(os.cpu_count()),
    }
