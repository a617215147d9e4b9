"""Converts PyTorch state dicts (dicts of numpy arrays) to Flax variables and back, strictly, without torch.

A list of `Entry`, one for each PyTorch key, in PyTorch's order, describes a model. Every PyTorch tensor is a Flax leaf,
or a slice of a leaf in which several tensors are stacked, or another name of a tensor before it. Leaves that PyTorch
does not store have an entry that says so.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmcl_jax.runtime.errors import MMCLError

ALIAS = "alias"
COUNTER = "counter"
IGNORED = "ignored"


class TorchWeightsError(MMCLError, ValueError):
    """A file of weights cannot be read, or a state dict or the entries do not fit the model. Lists every problem."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where one PyTorch tensor lives in the Flax variables.

    `leaf[index] == transpose(tensor, axes)`, after those axes of the tensor are dropped that `axes` leaves out; they
    have length 1 (height and width of a 1x1 convolution's kernel). Shapes follow from the Flax leaf.

    Attributes:
      key: PyTorch's name.
      collection: 'params' or 'batch_stats'; or `COUNTER`, a batch norm's `num_batches_tracked`, which Flax does not
        keep: optional on import, exported as 0; or `IGNORED`, a weight that the model does not use: optional on
        import, never exported; or `ALIAS`, a second name of the tensor `original`: both must be present and equal.
      path: names that lead to the Flax leaf within the collection.
      axes: for each axis of `leaf[index]`, the axis of the tensor.
      ndim: number of axes of the tensor.
      index: integers and slices that select a part of the leaf; () is the whole leaf.
      original: for an alias, the key of an entry before it.
      stored: False if PyTorch's state dict leaves the value out: it is then taken from the template on import and never
        exported, and `key` only names it.
    """

    key: str
    collection: str
    path: tuple[str, ...] = ()
    axes: tuple[int, ...] = ()
    ndim: int = 0
    index: tuple[int | slice, ...] = ()
    original: str = ""
    stored: bool = True


def array_entry(key: str, path: Iterable[str], ndim: int, index: tuple = (), collection: str = "params") -> Entry:
    """Returns the entry of a tensor whose axes are the same in Flax."""
    return Entry(key, collection, tuple(path), tuple(range(ndim)), ndim, index)


def conv_entries(
    name: str, path: Iterable[str], *, bias: bool = True, axes=(2, 3, 1, 0), kernel="kernel", index=(), bias_index=None
) -> list[Entry]:
    """Returns the entries of a 2-d convolution: `[O, I, H, W]` -> `[H, W, I, O]`, and its bias `[O]`.

    Args:
      name: PyTorch's name of the layer; `.weight` and `.bias` are appended.
      path: path of the Flax layer.
      bias: whether the layer has one.
      axes: `(1, 0)` for a 1x1 convolution kept as a matrix `[I, O]`, `(2, 1, 0)` for an (H, 1) one kept `[H, I, O]`.
      kernel: the kernel's name in Flax; the bias's name is the same with 'kernel' replaced by 'bias'.
      index: part of the kernel leaf, if layers are stacked.
      bias_index: part of the bias leaf; None means `index` without its first item (the input channels).
    """
    path = tuple(path)
    entries = [Entry(f"{name}.weight", "params", (*path, kernel), tuple(axes), 4, tuple(index))]
    if bias:
        bias_index = tuple(index[1:]) if bias_index is None else tuple(bias_index)
        bias_path = (*path, kernel.replace("kernel", "bias"))
        entries.append(array_entry(f"{name}.bias", bias_path, 1, bias_index))
    return entries


def linear_entries(name: str, path: Iterable[str], *, bias: bool = True) -> list[Entry]:
    """Returns the entries of a linear layer: `[O, I]` -> kernel `[I, O]`, and its bias `[O]`."""
    path = tuple(path)
    entries = [Entry(f"{name}.weight", "params", (*path, "kernel"), (1, 0), 2)]
    if bias:
        entries.append(array_entry(f"{name}.bias", (*path, "bias"), 1))
    return entries


def batch_norm_entries(name: str, path: Iterable[str], *, index: tuple = ()) -> list[Entry]:
    """Returns the entries of a batch norm: scale, bias, mean, var, each `[C]` or `leaf[index]`, and its counter."""
    path = tuple(path)
    leaves = [
        ("weight", "params", "scale"),
        ("bias", "params", "bias"),
        ("running_mean", "batch_stats", "mean"),
        ("running_var", "batch_stats", "var"),
    ]
    entries = [array_entry(f"{name}.{key}", (*path, leaf), 1, index, kind) for key, kind, leaf in leaves]
    return [*entries, Entry(f"{name}.num_batches_tracked", COUNTER)]


def flat(tree: Mapping) -> dict[tuple[str, ...], Any]:
    """Returns the leaves of nested dicts by their paths."""
    return {path: leaf for path, leaf in flatten_dict(dict(tree)).items()}


def nested(entries: Iterable[Entry], prefix: str, path: Iterable[str]) -> list[Entry]:
    """Returns the entries of a model inside another: `prefix` before each key, `path` before each Flax path."""
    path = tuple(path)
    return [
        dataclasses.replace(
            entry,
            key=prefix + entry.key,
            path=(*path, *entry.path),
            original=prefix + entry.original if entry.collection == ALIAS else "",
        )
        for entry in entries
    ]


def alias_entries(entries: Iterable[Entry], prefix: str, alias: str) -> list[Entry]:
    """Returns the entries of a PyTorch module's second name.

    Args:
      entries: of the model; those whose keys begin with `prefix` are used.
      prefix: the module's first name.
      alias: its second name.
    """
    return [
        Entry(alias + entry.key.removeprefix(prefix), COUNTER)
        if entry.collection == COUNTER
        else Entry(alias + entry.key.removeprefix(prefix), ALIAS, original=entry.key)
        for entry in entries
        if entry.key.startswith(prefix)
    ]


def resolve_aliases(state_dict: Mapping[str, np.ndarray], entries: Iterable[Entry]) -> dict[str, np.ndarray]:
    """Returns the state dict with the values that PyTorch's `load_state_dict` would leave in the model.

    `load_state_dict` copies in order, so that the later of two names of one tensor wins. This is for state dicts that
    no model saved (whose values were made from their names, for example): in a saved one both are equal, and `to_flax`
    refuses a state dict in which they are not.
    """
    later = {entry.original: entry.key for entry in entries if entry.collection == ALIAS}
    return {key: state_dict[later.get(key, key)] for key in state_dict}


_WRAPPERS = ("module.", "_orig_mod.", "model.")


def unwrapped(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Drops the prefixes that wrappers put before every name, in any order.

    DataParallel adds `module.`, `torch.compile` adds `_orig_mod.`, and Lightning adds `model.` if the model is an
    attribute of another.
    """
    state_dict = dict(state_dict)
    while state_dict:
        prefix = next((p for p in _WRAPPERS if all(key.startswith(p) for key in state_dict)), None)
        if prefix is None:
            break
        state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items()}
    return state_dict


def to_flax(state_dict: Mapping[str, np.ndarray], entries: Iterable[Entry], template: Mapping) -> dict:
    """Converts a PyTorch state dict to Flax variables.

    Args:
      state_dict: name -> array. Wrappers' prefixes are dropped (`unwrapped`).
      entries: the model's mapping.
      template: the model's variables, `{'params': ..., 'batch_stats': ...}`. Only shapes and types are used, so that
        the result of `jax.eval_shape(model.init, ...)` is enough, but for leaves that PyTorch does not store: their
        values are taken from it.

    Returns:
      The variables with the template's structure, as numpy arrays of the template's types.

    Raises:
      TorchWeightsError: a key is missing or extra, or its value is misshapen or not finite; two names of one tensor
        have different values; a leaf that PyTorch does not store has no value in the template; or the entries do not
        cover the template exactly. The message lists every such key with the shapes seen and expected.
    """
    entries = list(entries)
    state_dict = unwrapped(state_dict)
    leaves = flat(template)
    _check_mapping(entries, leaves)

    problems = []
    result = {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in leaves.items()}
    for entry in entries:
        if entry.collection in (COUNTER, IGNORED):
            continue
        if entry.collection == ALIAS:
            problems += _alias_problems(entry, state_dict)
            continue
        path = (entry.collection, *entry.path)
        leaf = result[path]
        if not entry.stored:
            if hasattr(leaves[path], "__array__"):
                leaf[entry.index] = np.asarray(leaves[path])[entry.index]
            else:
                problems.append(f"not stored by PyTorch: {'/'.join(path)}; the template must hold its value")
            continue
        expected = _torch_shape(entry, leaf[entry.index].shape)
        if entry.key not in state_dict:
            problems.append(f"missing: {entry.key}, expected {expected}")
            continue
        value = np.asarray(state_dict[entry.key])
        if value.shape != expected or not np.issubdtype(value.dtype, np.floating):
            problems.append(f"misshapen: {entry.key}, seen {value.dtype} {value.shape}, expected float {expected}")
            continue
        if not np.all(np.isfinite(value)):
            count = value.size - np.count_nonzero(np.isfinite(value))
            problems.append(
                f"not finite: {entry.key} {value.shape}, {count} of {value.size} values are NaN or infinite"
            )
            continue
        if entry.collection == "batch_stats" and entry.path[-1] == "var" and value.min(initial=0) < 0:
            problems.append(f"negative: {entry.key}, whose least value is {value.min():g}: a variance is 0 or more")
            continue
        kept = value.reshape([size for axis, size in enumerate(value.shape) if axis in entry.axes])
        leaf[entry.index] = kept.transpose(np.argsort(np.argsort(entry.axes)))
    known = {entry.key for entry in entries if entry.stored}
    for key in state_dict:
        if key not in known:
            problems.append(f"extra: {key}, seen {np.shape(state_dict[key])}, expected no such key")
    if problems:
        raise TorchWeightsError(
            f"the PyTorch state dict does not fit the model ({len(problems)} problems; is it the right model, "
            "with the right number of classes and joints?):\n  " + "\n  ".join(problems)
        )
    return unflatten_dict(result)


def to_torch(variables: Mapping, entries: Iterable[Entry]) -> dict[str, np.ndarray]:
    """Converts Flax variables to a PyTorch state dict, keys in PyTorch's order.

    Args:
      variables: `{'params': ..., 'batch_stats': ...}`, or some of the collections: `{'params': gradients}` gives
        each gradient its PyTorch name and shape.
      entries: the model's mapping.

    Returns:
      name -> array, of the Flax leaves' types. Batch norm's counters, which Flax does not keep, are int64 zeros.
      Counters and second names are present when `batch_stats` is: they belong to a state dict, not to gradients.

    Raises:
      TorchWeightsError: the entries do not cover the variables exactly.
    """
    entries = [
        entry
        for entry in entries
        if entry.collection in variables or (entry.collection in (COUNTER, ALIAS) and "batch_stats" in variables)
    ]
    leaves = {path: np.asarray(leaf) for path, leaf in flat(variables).items()}
    _check_mapping(entries, leaves)
    state_dict = {}
    for entry in entries:
        if not entry.stored:
            continue
        if entry.collection == COUNTER:
            state_dict[entry.key] = np.zeros((), np.int64)
            continue
        if entry.collection == ALIAS:
            state_dict[entry.key] = state_dict[entry.original].copy()
            continue
        part = leaves[entry.collection, *entry.path][entry.index]
        ordered = part.transpose(np.argsort(entry.axes))
        state_dict[entry.key] = np.ascontiguousarray(ordered).reshape(_torch_shape(entry, part.shape))
    return state_dict


def _alias_problems(entry: Entry, state_dict: Mapping[str, np.ndarray]) -> list[str]:
    if entry.key not in state_dict:
        return [f"missing: {entry.key}, expected the values of {entry.original}"]
    value, original = np.asarray(state_dict[entry.key]), np.asarray(state_dict.get(entry.original))
    if value.dtype != original.dtype or value.shape != original.shape or value.tobytes() != original.tobytes():
        return [f"unequal: {entry.key} and {entry.original}, expected the same values: they name one tensor"]
    return []


def _torch_shape(entry: Entry, part_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of the PyTorch tensor whose Flax part has shape `part_shape`."""
    shape = [1] * entry.ndim
    for axis, size in zip(entry.axes, part_shape, strict=True):
        shape[axis] = size
    return tuple(shape)


def _check_mapping(entries: list[Entry], leaves: Mapping[tuple[str, ...], np.ndarray]) -> None:
    """Raises TorchWeightsError unless keys are unique and every element of every leaf belongs to one entry."""
    problems = []
    seen = set()
    uses = {path: np.zeros(leaf.shape, np.int8) for path, leaf in leaves.items()}
    for entry in entries:
        if entry.key in seen:
            problems.append(f"{entry.key}: two entries")
        if entry.collection == ALIAS and entry.original not in seen:
            problems.append(f"{entry.key}: no entry {entry.original} before this second name of it")
        seen.add(entry.key)
        if entry.collection in (COUNTER, IGNORED, ALIAS):
            continue
        path = (entry.collection, *entry.path)
        if path not in uses:
            problems.append(f"{entry.key}: the variables have no leaf {'/'.join(path)}")
            continue
        try:
            part = uses[path][entry.index]
            uses[path][entry.index] += 1
        except IndexError as error:
            problems.append(f"{entry.key}: {'/'.join(path)} {leaves[path].shape} has no part {entry.index} ({error})")
            continue
        if len(part.shape) != len(entry.axes):
            problems.append(f"{entry.key}: axes {entry.axes} for a part of shape {part.shape} of {'/'.join(path)}")
    for path, count in uses.items():
        if not np.all(count == 1):
            problems.append(
                f"{'/'.join(path)} {count.shape}: {math.prod(count.shape)} values, of which "
                f"{np.count_nonzero(count == 0)} have no entry and {np.count_nonzero(count > 1)} have several"
            )
    if problems:
        raise TorchWeightsError("the entries do not fit the Flax variables:\n  " + "\n  ".join(problems))
