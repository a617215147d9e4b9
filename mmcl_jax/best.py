"""The best epoch of a run by its validation split: which it is, its weights in WORKDIR/best, and when to stop.

WORKDIR/best has a checkpoint and copies of the run's descriptions, so it is evaluated and fine-tuned like a workdir.
The test split decides nothing here. What the best epoch was is part of the training state, so that a resumed run goes
on as if it had not stopped.
"""

import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from absl import logging

from mmcl_jax import checkpoints
from mmcl_jax.run_log import EARLY_STOP
from mmcl_jax.runtime.distributed import check_same
from mmcl_jax.runtime.files import write_whole

FOLDER = "best"
_UNFINISHED, _REPLACED = ".best.unfinished", ".best.replaced"

Best = dict[str, Any]  # of `TrainState`


def improved(best: Best, top1: float, epoch: int) -> Best | None:
    """The best epoch after `epoch` with that validation top-1; None: it is not better than the best before it."""
    now = np.float32(top1)
    return {"top1": now, "epoch": np.int32(epoch)} if now > np.asarray(best["top1"]) else None


def is_exhausted(best: Best | None, epoch: int, patience: int) -> bool:
    """Whether the best epoch is `patience` epochs or more before the end of `epoch`; never with a patience of 0."""
    return bool(patience and best is not None and 0 < int(best["epoch"]) <= epoch - patience)


def keep(workdir: pathlib.Path, variables: dict, step: int) -> None:
    """Replaces WORKDIR/best by these variables of `MMCL`, which are complete before the old ones go.

    Raises: CheckpointError, OSError.
    """
    unfinished, replaced, folder = (workdir / name for name in (_UNFINISHED, _REPLACED, FOLDER))
    first = jax.process_index() == 0
    if first:
        shutil.rmtree(unfinished, ignore_errors=True)
    check_same(f"{unfinished}: removed", "")
    checkpoints.save_variables(unfinished, variables, step)
    if first:
        for path in workdir.glob("*.json"):
            shutil.copyfile(path, unfinished / path.name)
        shutil.rmtree(replaced, ignore_errors=True)
        if folder.exists():
            folder.rename(replaced)
        unfinished.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    check_same(f"{folder}: replaced", "")


def recover(workdir: pathlib.Path) -> None:
    """Puts the old weights back if the run was killed in `keep` between the old ones and the new ones."""
    replaced, folder = workdir / _REPLACED, workdir / FOLDER
    if jax.process_index() == 0 and replaced.exists() and not folder.exists():
        replaced.rename(folder)
    check_same(f"{folder}: recovered", "")


def note_stop(workdir: pathlib.Path, best: Best | None, epoch: int) -> None:
    """Logs that the run ends early, after `epoch`, and notes it in the workdir for other commands."""
    if jax.process_index() or best is None:
        return
    description: dict[str, Any] = {
        "epoch": epoch,
        "best_epoch": int(best["epoch"]),
        "validation_top1": float(best["top1"]),
    }
    write_whole(workdir / EARLY_STOP, json.dumps(description, indent=1) + "\n")
    logging.info(
        "stopped early after epoch %d: the best by validation is epoch %d, top-1 %.2f %%; train on with a larger "
        "--config.early_stopping_epochs",
        epoch,
        description["best_epoch"],
        100 * description["validation_top1"],
    )


def forget_stop(workdir: pathlib.Path) -> None:
    """Takes the note of `note_stop` back: the run goes on."""
    if jax.process_index() == 0:
        (workdir / EARLY_STOP).unlink(missing_ok=True)
