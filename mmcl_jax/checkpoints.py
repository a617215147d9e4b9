"""Saving and restoring runs with Orbax: three items per step, so that evaluation reads only the skeleton model.

`skeleton`: the backbone's variables, all that inference needs; `auxiliary`: FAM, FRM and image encoder; `training`:
step, optimizer state and the epoch's running totals. A checkpoint appears whole or not at all.
"""

import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from mmcl_jax.models.mmcl import BACKBONE
from mmcl_jax.runtime.errors import MMCLError

_ITEMS = ("skeleton", "auxiliary", "training")


class CheckpointError(MMCLError, RuntimeError):
    """A checkpoint could not be written or read; the message names the folder and the remedy."""


def open_manager(workdir: pathlib.Path, keep: int = 2) -> ocp.CheckpointManager:
    """Opens (or creates) the checkpoints of a run; the newest `keep` are kept."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    return ocp.CheckpointManager(folder(workdir), item_names=_ITEMS, options=options)


def folder(workdir: pathlib.Path) -> pathlib.Path:
    """The folder of a run's checkpoints."""
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
    """Returns the newest checkpoint in the structure, types and shardings of `state`, or `state` if there is none.

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
    """Reads only the skeleton model of the newest checkpoint.

    Args:
      workdir: the run's folder.
      template: the backbone's variables, or their shapes.

    Returns:
      (step, variables).

    Raises:
      CheckpointError: there is no checkpoint, or it does not fit.
    """
    manager, step = _open_newest(workdir)
    path, stored = folder_of(manager, step), manager.item_metadata(step)["skeleton"]
    if stored is not None:  # a damaged checkpoint has no metadata, and fails below
        _check_shapes(path, _shapes(stored), _shapes(template))
    abstract = jax.tree.map(_abstract, template)
    try:
        restored = manager.restore(step, args=ocp.args.Composite(skeleton=ocp.args.StandardRestore(abstract)))
    except Exception as error:
        raise _unreadable(path, error) from error
    manager.close()
    return step, restored["skeleton"]


def save_variables(workdir: pathlib.Path, variables: dict) -> None:
    """Writes weights imported from elsewhere, as step 0: they can be evaluated, but training cannot continue.

    Args:
      workdir: the folder to write into.
      variables: of `MMCL`: `params` and `batch_stats`, each with `BACKBONE` and perhaps FAM and FRM.

    Raises:
      CheckpointError: they could not be written.
    """
    manager = open_manager(workdir)
    items = _split_variables(variables["params"], variables["batch_stats"], np.zeros((), np.int32))
    try:
        manager.save(0, args=ocp.args.Composite(**{k: ocp.args.StandardSave(v) for k, v in items.items()}))
    except Exception as error:
        raise _explained(manager, error) from error
    finish(manager)
    manager.close()


def read_variables(workdir: pathlib.Path) -> tuple[int, dict]:
    """Reads the newest checkpoint's variables as they were saved, on one device, without a model.

    Returns:
      (step, variables of `MMCL`): `params` and `batch_stats`, each with `BACKBONE` and the modules trained with it.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be read.
    """
    manager, step = _open_newest(workdir)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    items = {}
    try:
        for name in ("skeleton", "auxiliary"):
            stored = manager.item_metadata(step)[name]
            abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), stored)
            arguments = ocp.args.Composite(**{name: ocp.args.StandardRestore(abstract)})
            items[name] = manager.restore(step, args=arguments)[name]
    except Exception as error:
        raise _unreadable(folder_of(manager, step), error) from error
    manager.close()
    return step, _join_variables(items)


def _open_newest(workdir: pathlib.Path) -> tuple[ocp.CheckpointManager, int]:
    if not folder(workdir).is_dir():
        raise CheckpointError(f"{folder(workdir)}: no checkpoints; train first with --mode=train --workdir={workdir}")
    handlers = {name: ocp.StandardCheckpointHandler() for name in _ITEMS}
    manager = ocp.CheckpointManager(folder(workdir), item_handlers=handlers, options=_READ_ONLY)
    step = manager.latest_step()
    if step is None:
        raise CheckpointError(f"{folder(workdir)}: no complete checkpoint; train first with --workdir={workdir}")
    return manager, step


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves: dict[tuple[str, ...], Any] = flatten_dict(dict(tree))
    return {"/".join(path): tuple(leaf.shape) for path, leaf in leaves.items()}


def _check_shapes(path: pathlib.Path, stored: dict[str, tuple], expected: dict[str, tuple]) -> None:
    """Raises CheckpointError with a list of the differences; Orbax would report only one, without its name."""
    differing = [
        f"{name}: {stored.get(name, 'nothing')} in the checkpoint, {expected.get(name, 'nothing')} in the model"
        for name in sorted(stored.keys() | expected.keys())
        if stored.get(name) != expected.get(name)
    ]
    if differing:
        shown = "; ".join(differing[:_SHOWN]) + ("; ..." if len(differing) > _SHOWN else "")
        raise CheckpointError(
            f"{path}: the checkpoint belongs to another model than this config's, or to records with other classes, "
            f"joints or bodies. {len(differing)} of {len(expected)} arrays differ: {shown}. Use the "
            "config and the records that it was trained with"
        )


_SHOWN = 6
_READ_ONLY = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)


def folder_of(manager: ocp.CheckpointManager, step: int) -> pathlib.Path:
    """Folder of one checkpoint."""
    return pathlib.Path(manager.directory) / str(step)


def _split(state: Any) -> dict[str, dict]:
    training = {"step": state.step, "opt_state": state.opt_state, "totals": state.totals}
    return {**_split_variables(state.params, state.batch_stats, state.step), "training": training}


def _split_variables(params: dict, batch_stats: dict, step: Any) -> dict[str, dict]:
    variables = {"params": params, "batch_stats": batch_stats}
    skeleton = {kind: tree[BACKBONE] for kind, tree in variables.items()}
    auxiliary = {kind: {k: v for k, v in tree.items() if k != BACKBONE} for kind, tree in variables.items()}
    # Orbax refuses trees without leaves, and a skeleton-only run has no auxiliary variables.
    return {"skeleton": skeleton, "auxiliary": {**auxiliary, "present": step}}


def _join_variables(items: dict[str, dict]) -> dict:
    return {
        kind: {**items["auxiliary"].get(kind, {}), BACKBONE: items["skeleton"][kind]}
        for kind in ("params", "batch_stats")
    }


def _join(state: Any, items: dict[str, dict]) -> Any:
    training = items["training"]
    return state.replace(
        **_join_variables(items),
        step=training["step"],
        opt_state=training["opt_state"],
        totals=training["totals"],
    )


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))


def _explained(manager: ocp.CheckpointManager, error: Exception) -> CheckpointError:
    # Read from the disk: after a failed write the manager's own list has a checkpoint that does not exist.
    kept = sorted(int(path.name) for path in pathlib.Path(manager.directory).iterdir() if path.name.isdigit())
    remedy = "The disk is full: make room, then start" if "space" in str(error).lower() else "Start"
    return CheckpointError(
        f"{manager.directory}: the checkpoint could not be written ({error}). {remedy} again: the run resumes "
        f"from the last complete checkpoint, step {kept[-1] if kept else 0}"
    )


def _unreadable(path: pathlib.Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: the checkpoint cannot be restored ({error}). If it was written with another model or records, use "
        "that config or another --workdir; if it is damaged, remove this folder: the run then resumes from the "
        "checkpoint before it"
    )
