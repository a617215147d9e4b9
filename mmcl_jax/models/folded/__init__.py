"""Twins of the backbones for prediction: the same function in evaluation, without batch norms.

In evaluation a batch norm multiplies each channel by a factor and adds an offset, both constant. A product before it
can take them over: `fold` turns the variables of a backbone into those of its twin, once for a set of weights. Where no
product comes before a norm, `FoldedNorm` keeps the rest. CTR-GCN's twin has other modules too: its features have the
frames last, `[C, N, M, V, T]`, which makes the products over joints much faster on CPUs, because frames fill vectors
and 25 joints do not.

`tests/test_predictor` compares every twin with its backbone, in float64 to 1e-11.

To add a twin: a subclass of the backbone (see `backbones`) and one line in `TWINS`.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn

from mmcl_jax.models.folded.backbones import TWINS, Twin
from mmcl_jax.models.folded.layers import fold_conv, norm_affine

__all__ = ["TWINS", "fold", "has_twin", "twin_of"]


def has_twin(backbone: nn.Module) -> bool:
    """Whether the backbone has a twin."""
    return type(backbone) in TWINS


def twin_of(backbone: nn.Module) -> Twin:
    """The backbone's twin, which takes the variables that `fold` returns. Raises: KeyError if it has none."""
    fields = [field.name for field in dataclasses.fields(backbone) if field.name not in ("parent", "name")]
    return TWINS[type(backbone)](**{name: getattr(backbone, name) for name in fields})


def fold(backbone: nn.Module, variables: Mapping) -> dict[str, dict]:
    """Variables of a backbone, `params` and `batch_stats` -> those of its twin. Raises: KeyError if it has none."""
    twin = TWINS[type(backbone)]
    params, batch_stats = dict(variables["params"]), dict(variables["batch_stats"])
    scale, bias = norm_affine(params, batch_stats, "data_bn")
    params["data_bn"] = {"scale": scale, "bias": bias}
    del batch_stats["data_bn"]
    for name in [name for name in params if name.startswith("blocks_")]:
        params[name] = _fold_block(twin, params[name], batch_stats.pop(name))
    return {"params": params, "batch_stats": batch_stats}


def _fold_block(twin: type[Twin], params: Mapping, batch_stats: Mapping) -> dict[str, dict]:
    folded = {
        "gcn": twin.fold_graph_conv(params["gcn"], batch_stats["gcn"]),
        "tcn": twin.fold_temporal_conv(params["tcn"], batch_stats["tcn"]),
    }
    if "residual" in params:
        folded["residual"] = fold_conv(params["residual"], *norm_affine(params, batch_stats, "residual_bn"))
    return folded
