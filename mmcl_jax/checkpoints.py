"""Saving and restoring runs with Orbax: three items per step, so that evaluation reads only the skeleton model.

`skeleton`: the backbone's variables, all that inference needs; `auxiliary`: FAM, FRM and image encoder; `training`:
step, optimizer state and the epoch's running totals. A checkpoint appears whole or not at all.

Of a run with a moving average of its weights, `skeleton` holds the average, and `training` also the backbone's own
variables, `own`. Of a run that keeps its best epoch, `training` also holds what the best was, `best`.

`digests` holds the SHA-256 of each item's arrays. What is restored must have the same, bit for bit: neither Orbax nor
the array files notice most changed bits. A damaged checkpoint gives way to the one before it, and the log says so.
"""

import contextlib
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Iterator
from logging import LogRecord
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax.traverse_util import flatten_dict

from mmcl_jax.models.mmcl import BACKBONE
from mmcl_jax.runtime.distributed import check_same
from mmcl_jax.runtime.errors import MMCLError
from mmcl_jax.runtime.files import check_regular

_ITEMS = ("skeleton", "auxiliary", "training")
_DIGESTS = "digests"


class CheckpointError(MMCLError, RuntimeError):
    """A checkpoint could not be written or read; the message names the folder and the remedy."""


def open_manager(workdir: pathlib.Path, keep: int = 2) -> ocp.CheckpointManager:
    """Opens (or creates) the checkpoints of a run; the newest `keep` are kept."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    return ocp.CheckpointManager(folder(workdir), item_names=(*_ITEMS, _DIGESTS), options=options)


def folder(workdir: pathlib.Path) -> pathlib.Path:
    """The folder of a run's checkpoints."""
    return pathlib.Path(workdir).absolute() / "checkpoints"


def save(manager: ocp.CheckpointManager, state: Any) -> None:
    """Writes the state in the background under its step. Raises: CheckpointError."""
    try:
        manager.save(int(state.step), args=_to_save(_split(state)))
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
    """Returns the newest sound checkpoint in the structure, types and shardings of `state`; `state` if there is none.

    Damaged ones that are newer are renamed, so that the run can save these steps again.

    Raises:
      CheckpointError: no checkpoint fits the model and can be read.
      DistributedError: processes disagree about which is damaged.
    """
    if manager.latest_step() is None:
        return state
    abstract = jax.tree.map(_abstract, _split(state))
    step, items = _newest_sound(manager, lambda step: _read(manager, step, abstract))
    _set_aside(manager, [newer for newer in manager.all_steps() if newer > step])
    return _join(state, items)


def restore_skeleton(workdir: pathlib.Path, template: dict) -> tuple[int, dict]:
    """Reads only the skeleton model of the newest checkpoint in which it is sound.

    Args:
      workdir: the run's folder.
      template: the backbone's variables, or their shapes.

    Returns:
      (step, variables).

    Raises:
      CheckpointError: there is no checkpoint, or it does not fit.
    """
    abstract = jax.tree.map(_abstract, template)

    def read(step: int) -> dict:
        stored = manager.item_metadata(step)["skeleton"]
        if stored is not None:  # a damaged checkpoint has no metadata, and fails below
            _check_shapes(folder_of(manager, step), _shapes(stored), _shapes(template))
        return _read(manager, step, {"skeleton": abstract})["skeleton"]

    with _opened_to_read(workdir, "skeleton") as manager:
        return _newest_sound(manager, read)


def skeleton_shapes(workdir: pathlib.Path) -> dict:
    """Shapes and types of the skeleton model's variables in the newest checkpoint whose metadata can be read.

    Raises: CheckpointError if there is none.
    """
    with _opened_to_read(workdir, "skeleton") as manager:
        steps = sorted(manager.all_steps(), reverse=True)
        for step in steps:
            with contextlib.suppress(Exception):  # of Orbax, on a damaged checkpoint: anything
                stored = manager.item_metadata(step)["skeleton"]
                if stored is not None:
                    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), dict(stored))
        raise _unreadable(folder_of(manager, steps[0]), ValueError("its metadata cannot be read"))


def latest_step(workdir: pathlib.Path) -> int | None:
    """The step of the newest checkpoint, which may be damaged; None: there is none."""
    return max(_steps(workdir), default=None)


def _steps(workdir: pathlib.Path) -> list[int]:
    return [int(path.name) for path in folder(workdir).glob("*") if path.name.isdigit()]


def save_variables(workdir: pathlib.Path, variables: dict, step: int = 0) -> None:
    """Writes weights by themselves: they can be evaluated and fine-tuned, but their training cannot continue.

    Args:
      workdir: the folder to write into.
      variables: of `MMCL`: `params` and `batch_stats`, each with `BACKBONE` and perhaps FAM and FRM.
      step: training steps behind them; 0: they come from elsewhere.

    Raises:
      CheckpointError: they could not be written.
    """
    manager = open_manager(workdir)
    items = _split_variables(variables["params"], variables["batch_stats"], np.asarray(step, np.int32))
    try:
        manager.save(step, args=_to_save(items))
    except Exception as error:
        raise _explained(manager, error) from error
    finish(manager)
    manager.close()


def read_variables(workdir: pathlib.Path) -> tuple[int, dict]:
    """Reads the newest sound checkpoint's variables as they were saved, on one device, without a model.

    Returns:
      (step, variables of `MMCL`): `params` and `batch_stats`, each with `BACKBONE` and the modules trained with it.

    Raises:
      CheckpointError: there is no checkpoint, or it cannot be read.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def read(step: int) -> dict:
        stored = manager.item_metadata(step)
        abstract = {
            name: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), stored[name])
            for name in ("skeleton", "auxiliary")
        }
        return _read(manager, step, abstract)

    with _opened_to_read(workdir, "skeleton", "auxiliary") as manager:
        step, items = _newest_sound(manager, read)
    return step, _join_variables(items)


def _to_save(items: dict[str, dict]) -> ocp.args.Composite:
    digests = {name: _digest(item) for name, item in items.items()}
    trees = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    return ocp.args.Composite(**trees, **{_DIGESTS: ocp.args.JsonSave(digests)})


def _digest(tree: Any) -> str:
    """SHA-256 of a tree's arrays, with their names, types and shapes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.flatten_with_path(tree)[0]:
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _read(manager: ocp.CheckpointManager, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
    """Items of a checkpoint, by name, like `abstract`, and with the digests that they were saved with."""
    path = folder_of(manager, step)
    items: dict[str, Any] = {name: ocp.args.StandardRestore(item) for name, item in abstract.items()}
    has_digests = (path / _DIGESTS).is_dir()
    if has_digests:
        items[_DIGESTS] = ocp.args.JsonRestore()
    restored = manager.restore(step, args=ocp.args.Composite(**items))
    if not has_digests:
        logging.info("%s: older than the digests of checkpoints; it is used as it is, unchecked", path)
        return {name: restored[name] for name in abstract}
    for name in abstract:
        if restored[_DIGESTS].get(name) != _digest(restored[name]):
            raise ValueError(f"the arrays of {path / name} are not those that were saved: their SHA-256 differs")
    return {name: restored[name] for name in abstract}


def _newest_sound(manager: ocp.CheckpointManager, read: Callable[[int], Any]) -> tuple[int, Any]:
    """The newest step that can be read, and what was read. Raises: CheckpointError, of the newest, if none can."""
    failures = []
    for step in sorted(manager.all_steps(), reverse=True):
        path = folder_of(manager, step)
        try:
            for file in path.rglob("*"):
                if not file.is_dir():
                    check_regular(file)
            result, failure = read(step), None
        # Orbax and the array files raise anything from KeyError to RuntimeError on a damaged checkpoint.
        except Exception as error:
            result, failure = None, error
        check_same(f"{path}: whether the checkpoint is sound", str(failure is None))
        if failure is None:
            for newer, error in failures:
                logging.warning("%s: cannot be restored (%s); step %d is used instead", newer, _brief(error), step)
            return step, result
        failures.append((path, failure))
    path, error = failures[0]
    raise error if isinstance(error, CheckpointError) else _unreadable(path, error) from error


def _set_aside(manager: ocp.CheckpointManager, steps: list[int]) -> None:
    """Renames damaged checkpoints: their steps will be saved again, and a user may want to look at them."""
    if not steps:
        return
    if jax.process_index() == 0:
        for step in steps:
            path = folder_of(manager, step)
            free = (path.with_name(f"{step}.damaged{number}") for number in itertools.count(1))
            aside = next(candidate for candidate in free if not candidate.exists())
            path.rename(aside)
            logging.warning("%s: renamed to %s; remove it when you do not need it", path, aside.name)
    check_same(f"{manager.directory}: damaged checkpoints are renamed", "")
    manager.reload()


@contextlib.contextmanager
def _opened_to_read(workdir: pathlib.Path, *items: str) -> Iterator[ocp.CheckpointManager]:
    """Opens these items of the checkpoints; damage in others does not matter. Closes them at the end.

    Orbax warns of every item that is not asked for; the warnings are not shown.
    """
    logger = logging.get_absl_logger()
    logger.addFilter(_is_not_of_orbax)
    try:
        with contextlib.closing(_open_to_read(workdir, *items)) as manager:
            yield manager
    finally:
        logger.removeFilter(_is_not_of_orbax)


def _is_not_of_orbax(entry: LogRecord) -> bool:
    return "orbax" not in entry.pathname


def _open_to_read(workdir: pathlib.Path, *items: str) -> ocp.CheckpointManager:
    if not folder(workdir).is_dir():
        raise CheckpointError(f"{folder(workdir)}: no checkpoints; train first with --mode=train --workdir={workdir}")
    handlers = {name: ocp.StandardCheckpointHandler() for name in items} | {_DIGESTS: ocp.JsonCheckpointHandler()}
    try:
        manager = ocp.CheckpointManager(folder(workdir), item_handlers=handlers, options=_READ_ONLY)
    except Exception as error:  # of Orbax, which reads the metadata of every checkpoint: anything
        steps = ", ".join(map(str, sorted(_steps(workdir))))
        raise CheckpointError(
            f"{folder(workdir)}: the metadata of a checkpoint cannot be read ({_brief(error)}). Move the damaged one "
            f"of its folders ({steps}) elsewhere; an older one is then used, if there is one"
        ) from error
    if manager.latest_step() is None:
        manager.close()
        raise CheckpointError(f"{folder(workdir)}: no complete checkpoint; train first with --workdir={workdir}")
    return manager


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
_LONGEST = 300  # letters of another library's message
_READ_ONLY = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)


def folder_of(manager: ocp.CheckpointManager, step: int) -> pathlib.Path:
    """Folder of one checkpoint."""
    return pathlib.Path(manager.directory) / str(step)


def _split(state: Any) -> dict[str, dict]:
    training = {"step": state.step, "opt_state": state.opt_state, "totals": state.totals}
    if state.best is not None:
        training["best"] = state.best
    items = _split_variables(state.params, state.batch_stats, state.step)
    if state.average is not None:
        training["own"] = items["skeleton"]
        items["skeleton"] = state.average
    return {**items, "training": training}


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
    training, average = items["training"], None
    if "own" in training:
        average, items = items["skeleton"], {**items, "skeleton": training["own"]}
    return state.replace(
        **_join_variables(items),
        average=average,
        best=training.get("best"),
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
        f"{path}: the checkpoint cannot be restored ({_brief(error)}), and no older one can. If it was written with "
        "another model or records, use that config or another --workdir; if it is damaged, restore it from a copy, or "
        f"remove the folder {path.parent} and train again"
    )


def _brief(error: Exception) -> str:
    """What happened, in at most a few lines: the array files' errors go on for pages."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
