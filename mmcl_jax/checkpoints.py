"""Saving and restoring runs with Orbax: three items a step, so that evaluation reads the skeleton model alone.

`skeleton`: the backbone's variables, all that inference needs; `auxiliary`: FAM, FRM and image encoder; `training`:
step, optimiser state and the epoch's running totals. A checkpoint appears whole or not at all.
"""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

BACKBONE = "backbone"
_ITEMS = ("skeleton", "auxiliary", "training")


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message names the folder and the remedy."""


def open_manager(workdir: pathlib.Path, keep: int = 2) -> ocp.CheckpointManager:
    """Opens (or creates) the checkpoints of a run; the newest `keep` are kept."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    return ocp.CheckpointManager(folder(workdir), item_names=_ITEMS, options=options)


def folder(workdir: pathlib.Path) -> pathlib.Path:
    """Where a run's checkpoints lie."""
    return pathlib.Path(workdir).absolute() / "checkpoints"


def save(manager: ocp.CheckpointManager, state: Any) -> None:
    """Writes the state in the background under its step. Raises: CheckpointError."""
    items = {name: ocp.args.StandardSave(item) for name, item in _split(state).items()}
    try:
        manager.save(int(state.step), args=ocp.args.Composite(**items))
    except Exception as error:
        raise _explained(manager, error) from error


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits until the last save is complete. Raises: CheckpointError."""
    try:
        manager.wait_until_finished()
        manager.check_for_errors()
    except Exception as error:
        raise _explained(manager, error) from error


def restore_latest(manager: ocp.CheckpointManager, state: Any) -> Any:
    """Returns the newest checkpoint in the structure, types and shardings of `state`, or `state` where there is none.

    Raises:
      CheckpointError: the checkpoint does not fit the model or cannot be read.
    """
    step = manager.latest_step()
    if step is None:
        return state
    abstract = jax.tree.map(_abstract, _split(state))
    items = {name: ocp.args.StandardRestore(item) for name, item in abstract.items()}
    try:
        restored = manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:
        raise _unreadable(folder_of(manager, step), error) from error
    return _join(state, {name: restored[name] for name in _ITEMS})


def restore_skeleton(workdir: pathlib.Path, template: dict) -> tuple[int, dict]:
    """Reads the newest checkpoint's skeleton model alone.

    Args:
      workdir: the run's folder.
      template: the backbone's variables, or their shapes.

    Returns:
      (step, variables).

    Raises:
      CheckpointError: there is none, or it does not fit.
    """
    if not folder(workdir).is_dir():
        raise CheckpointError(f"{folder(workdir)}: no checkpoints; train first with --mode=train --workdir={workdir}")
    manager = ocp.CheckpointManager(folder(workdir), item_names=_ITEMS, options=_READ_ONLY)
    step = manager.latest_step()
    if step is None:
        raise CheckpointError(f"{folder(workdir)}: no complete checkpoint; train first with --workdir={workdir}")
    abstract = jax.tree.map(_abstract, template)
    try:
        restored = manager.restore(step, args=ocp.args.Composite(skeleton=ocp.args.StandardRestore(abstract)))
    except Exception as error:
        raise _unreadable(folder_of(manager, step), error) from error
    manager.close()
    return step, restored["skeleton"]


_READ_ONLY = ocp.CheckpointManagerOptions(read_only=True)


def folder_of(manager: ocp.CheckpointManager, step: int) -> pathlib.Path:
    """Folder of one checkpoint."""
    return pathlib.Path(manager.directory) / str(step)


def _split(state: Any) -> dict[str, dict]:
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    skeleton = {kind: tree[BACKBONE] for kind, tree in variables.items()}
    auxiliary = {kind: {k: v for k, v in tree.items() if k != BACKBONE} for kind, tree in variables.items()}
    # Orbax refuses trees without leaves, and a skeleton-only run has no auxiliary variables.
    auxiliary = {**auxiliary, "present": state.step}
    training = {"step": state.step, "opt_state": state.opt_state, "totals": state.totals}
    return {"skeleton": skeleton, "auxiliary": auxiliary, "training": training}


def _join(state: Any, items: dict[str, dict]) -> Any:
    params, batch_stats = (
        {**items["auxiliary"].get(kind, {}), BACKBONE: items["skeleton"][kind]} for kind in ("params", "batch_stats")
    )
    training = items["training"]
    return state.replace(
        params=params,
        batch_stats=batch_stats,
        step=training["step"],
        opt_state=training["opt_state"],
        totals=training["totals"],
    )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


def _explained(manager: ocp.CheckpointManager, error: Exception) -> CheckpointError:
    # Read from the disk: after a failed write the manager's own list holds the checkpoint that never came to be.
    kept = sorted(int(path.name) for path in pathlib.Path(manager.directory).iterdir() if path.name.isdigit())
    room = "; the disk is full, make room" if "space" in str(error).lower() else ""
    return CheckpointError(
        f"{manager.directory}: the checkpoint could not be written ({error}){room} and start again: the run resumes "
        f"from the last complete checkpoint, step {kept[-1] if kept else 0}"
    )


def _unreadable(path: pathlib.Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: the checkpoint cannot be restored ({error}). If it was written with another model or records, use "
        "that config or another --workdir; if it is damaged, remove this folder to fall back on the one before"
    )
