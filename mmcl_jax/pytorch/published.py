"""The published PyTorch models: recognizes which one a state dict is, measures it, and converts it to Flax."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from mmcl_jax.models.ctrgcn import CTRGCN
from mmcl_jax.models.ctrsgcn import CTRSGCN
from mmcl_jax.models.hdgcn import HDGCN
from mmcl_jax.models.infogcn import InfoGCN
from mmcl_jax.models.mmcl import BACKBONE, MMCL, FeatureAlignment, FeatureRefinement
from mmcl_jax.pytorch.names import (
    IMAGE_ENCODER_ENTRIES,
    ctrgcn_entries,
    ctrsgcn_entries,
    hdgcn_entries,
    infogcn_entries,
    mmcl_entries,
)
from mmcl_jax.pytorch.state_dicts import Entry, TorchWeightsError, flat, to_flax

Sizes = Mapping[str, int]
_FRAMES = 64  # of the clip that shapes are traced with; the variables do not depend on it
_COUNTER_SUFFIX = ".num_batches_tracked"


class Published(NamedTuple):
    """A published model.

    Attributes:
      backbone: its key in `mmcl_jax.models.BACKBONES`.
      entries: mapping of its names, a function of the sizes in `arguments`.
      arguments: names of sizes.
      sizes: size -> (PyTorch key, axis) whose length it is. Every model has `num_classes`, `joints`, `channels` of a
        clip and `base_channels`; `bodies` follows from them and the length of `data_bn`.
      module: makes the Linen module from the sizes.
      inputs: sizes that are widths of further inputs `[N, width]`; a model that has some is an `MMCL`.
      normalized: the size that counts the channels of `data_bn` for each joint of each body.
    """

    backbone: str
    entries: Callable[..., list[Entry]]
    arguments: tuple[str, ...]
    sizes: Mapping[str, tuple[str, int]]
    module: Callable[[Sizes], nn.Module]
    inputs: tuple[str, ...] = ()
    normalized: str = "channels"


class Recognised(NamedTuple):
    """A state dict that was recognized and converted.

    Attributes:
      name: key of `PUBLISHED`.
      sizes: by the names of `Published.sizes`, and `bodies`.
      entries: the mapping.
      variables: `params` and `batch_stats` of `MMCL`; those of the skeleton model are under `BACKBONE`.
    """

    name: str
    sizes: dict[str, int]
    entries: list[Entry]
    variables: dict


def _ctrgcn(sizes: Sizes) -> CTRGCN:
    return CTRGCN(sizes["num_classes"], np.zeros((3, sizes["joints"], sizes["joints"])), sizes["base_channels"])


def _ctrsgcn(sizes: Sizes) -> CTRSGCN:
    return CTRSGCN(sizes["num_classes"], np.zeros((3, sizes["joints"], sizes["joints"])), sizes["base_channels"])


def _hdgcn(sizes: Sizes) -> HDGCN:
    adjacency = np.zeros((sizes["num_layers"], 3, sizes["joints"], sizes["joints"]))
    return HDGCN(sizes["num_classes"], adjacency, sizes["base_channels"])


def _infogcn(sizes: Sizes) -> InfoGCN:
    return InfoGCN(sizes["num_classes"], np.eye(sizes["joints"]), sizes["base_channels"])


def _mmcl(sizes: Sizes) -> MMCL:
    backbone = _ctrgcn(sizes)
    return MMCL(backbone, alignment=FeatureAlignment(backbone.feature_width), refinement=FeatureRefinement())


# Vectors and square matrices, if a model has them: a transposed matrix does not change these sizes.
_TEN_BLOCKS = {
    "num_classes": ("fc.bias", 0),
    "joints": ("l1.gcn1.PA", -1),
    "channels": ("l1.gcn1.down.0.weight", 1),
    "base_channels": ("l1.gcn1.bn.weight", 0),
}
_NINE_BLOCKS = {
    "num_classes": ("decoder.bias", 0),
    "joints": ("l1.agcn.shared_topology", -1),
    "channels": ("to_joint_embedding.weight", 1),
    "base_channels": ("to_joint_embedding.bias", 0),
}
_MODULES = {"image_width": ("FAM_Aligh.mlp.0.weight", 1), "text_width": ("mlp.0.weight", 1)}
_WIDTH = ("base_channels",)

PUBLISHED = {
    "ctrgcn": Published("ctrgcn", ctrgcn_entries, _WIDTH, _TEN_BLOCKS, _ctrgcn),
    "ctrsgcn": Published("ctrsgcn", ctrsgcn_entries, _WIDTH, _TEN_BLOCKS, _ctrsgcn),
    "hdgcn": Published(
        "hdgcn",
        hdgcn_entries,
        (*_WIDTH, "num_layers"),
        _TEN_BLOCKS | {"num_layers": ("l1.gcn1.PA", 0)},
        _hdgcn,
    ),
    "infogcn": Published("infogcn", infogcn_entries, _WIDTH, _NINE_BLOCKS, _infogcn, normalized="base_channels"),
    "mmcl": Published("ctrgcn", mmcl_entries, _WIDTH, _TEN_BLOCKS | _MODULES, _mmcl, tuple(_MODULES)),
}


def convert(state_dict: Mapping[str, np.ndarray], name: str | None = None) -> Recognised:
    """Converts a published model's state dict, strictly.

    Args:
      state_dict: name -> array, without wrappers' prefixes (`state_dicts.unwrapped`).
      name: key of `PUBLISHED`; None: the model is recognized by the keys.

    Raises:
      TorchWeightsError: the state dict is none of the models, or does not fit its model.
    """
    name = name or recognise(state_dict)
    if name in IMAGE_ENCODER_ENTRIES:
        raise TorchWeightsError(
            f"weights of the image encoder {name}, no skeleton model; training takes them with "
            f"--config.model.image_encoder={name} --config.model.image_encoder_weights=FILE"
        )
    model = PUBLISHED[name]
    try:
        sizes, entries = measure(name, state_dict)
        variables = to_flax(state_dict, entries, _template(model, sizes, entries))
    except TorchWeightsError as error:
        raise TorchWeightsError(f"read as {name} (--model names another): {error}") from error
    if not model.inputs:
        variables = {kind: {BACKBONE: tree} for kind, tree in variables.items()}
    return Recognised(name, sizes, entries, variables)


def entries_of(name: str, variables: Mapping) -> list[Entry]:
    """The mapping that fits variables of `PUBLISHED[name]`: those of `MMCL` or only of a backbone.

    Raises:
      TorchWeightsError: the variables lack a leaf that a size is measured by.
    """
    model = PUBLISHED[name]
    entries = {entry.key: entry for entry in model.entries()}
    leaves = flat(variables)
    sizes = {}
    for size in model.arguments:
        key, axis = model.sizes[size]
        entry = entries[key]
        path = (entry.collection, *entry.path)
        if path not in leaves:
            raise TorchWeightsError(f"the variables are not those of {name}: no leaf {'/'.join(path)}")
        sizes[size] = leaves[path][entry.index].shape[entry.axes.index(axis % entry.ndim)]
    return _entries(model, sizes)


def recognise(state_dict: Mapping[str, Any]) -> str:
    """Returns the model that shares most names with the state dict, at least half of their union.

    Args:
      state_dict: name -> anything with a shape.

    Returns:
      A key of `PUBLISHED`, or of `names.IMAGE_ENCODER_ENTRIES`.

    Raises:
      TorchWeightsError: it is none of them.
    """
    seen = _without_counters(state_dict)
    names = {name: _stored(_entries(model, _lengths(model, state_dict))) for name, model in PUBLISHED.items()}
    nearest = max(PUBLISHED, key=lambda name: _likeness(seen, names[name]))
    if _likeness(seen, names[nearest]) >= 0.5:
        return nearest
    for name, entries in IMAGE_ENCODER_ENTRIES.items():
        if _likeness(seen, {entry.key for entry in entries()}) >= 0.5:
            return name
    known = _without_counters(names[nearest])
    raise TorchWeightsError(
        f"none of the models known here ({', '.join(PUBLISHED)}): of its {len(seen)} names the nearest, {nearest}, "
        f"shares {len(seen & known)} of {len(known)}. If it is that model, rename its keys as published; "
        f"--model={nearest} lists what is missing"
    )


def measure(name: str, state_dict: Mapping[str, Any]) -> tuple[dict[str, int], list[Entry]]:
    """Returns the sizes of `PUBLISHED[name]`, as in `Recognised`, and its mapping; only shapes are used.

    Args:
      name: key of `PUBLISHED`.
      state_dict: name -> anything with a shape.

    Raises:
      TorchWeightsError: a key is missing, or its length fits no model.
    """
    model = PUBLISHED[name]
    sizes = _sizes(model, state_dict)
    return sizes, _entries(model, sizes)


def _likeness(seen: set[str], names: set[str]) -> float:
    known = _without_counters(names)
    return len(seen & known) / len(seen | known)


def _stored(entries: list[Entry]) -> set[str]:
    return {entry.key for entry in entries if entry.stored}


def _without_counters(names: Iterable[str]) -> set[str]:
    return {name for name in names if not name.endswith(_COUNTER_SUFFIX)}


def _entries(model: Published, sizes: Sizes) -> list[Entry]:
    return model.entries(**{name: sizes[name] for name in model.arguments if name in sizes})


def _lengths(model: Published, state_dict: Mapping[str, Any]) -> dict[str, int]:
    """Returns those of the model's sizes that the state dict has keys for."""
    shapes = {name: state_dict[key].shape for name, (key, _) in model.sizes.items() if key in state_dict}
    axes = {name: axis for name, (_, axis) in model.sizes.items()}
    return {name: shape[axes[name]] for name, shape in shapes.items() if -len(shape) <= axes[name] < len(shape)}


def _sizes(model: Published, state_dict: Mapping[str, Any]) -> dict[str, int]:
    """Returns all sizes, also `bodies`. Raises: TorchWeightsError if a key is missing or its length fits no model."""
    sizes = _lengths(model, state_dict)
    wanted = {name: key for name, (key, _) in model.sizes.items()}
    normalized = state_dict["data_bn.weight"].shape if "data_bn.weight" in state_dict else ()
    problems = [f"missing: {key}, which tells {name}" for name, key in wanted.items() if name not in sizes]
    problems += [f"empty: {wanted[name]}, which tells {name}" for name, length in sizes.items() if not length]
    length, each = math.prod(normalized), 0
    if not problems:
        each = sizes["joints"] * sizes[model.normalized]
        if len(normalized) != 1 or not length or length % each:
            problems.append(
                f"misshapen: data_bn.weight, seen {tuple(normalized)}, expected a multiple of {each}: "
                + " x ".join(f"{sizes[name]} {name} ({wanted[name]})" for name in ("joints", model.normalized))
            )
        width = sizes["base_channels"]
        if width < 4 or width % 4:
            problems.append(f"misshapen: {wanted['base_channels']}, {width} channels, expected a multiple of 4")
    if problems:
        missing = _without_counters(_stored(_entries(model, sizes))) - {*state_dict, *wanted.values()}
        problems += [f"missing: {key}" for key in sorted(missing)]
        raise TorchWeightsError(f"its sizes cannot be told ({len(problems)} problems):\n  " + "\n  ".join(problems))
    return {**sizes, "bodies": length // each}


def _template(model: Published, sizes: Sizes, entries: list[Entry]) -> dict:
    """Shapes of the module's variables; zeros for those that PyTorch does not store, which only training needs."""
    clip = jax.ShapeDtypeStruct((1, sizes["bodies"], _FRAMES, sizes["joints"], sizes["channels"]), jnp.float32)
    others = [jax.ShapeDtypeStruct((1, sizes[name]), jnp.float32) for name in model.inputs]
    module = model.module(sizes)
    shapes = jax.eval_shape(lambda *inputs: module.init(jax.random.key(0), *inputs, train=False), clip, *others)
    leaves = flat(shapes)
    for entry in entries:
        if not entry.stored:
            path = (entry.collection, *entry.path)
            leaves[path] = np.zeros(leaves[path].shape, leaves[path].dtype)
    return unflatten_dict(leaves)
