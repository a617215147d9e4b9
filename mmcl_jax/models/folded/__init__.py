"""Twins of the backbones for prediction: the same function in evaluation, without batch norms.

In evaluation a batch norm multiplies each channel by a factor and adds an offset, both constant. A product before it
can take them over: `fold` turns the variables of a backbone into those of its twin, once for a set of weights. Where no
product comes before a norm, `FoldedNorm` keeps the rest. CTR-GCN's twin has other modules too: its features have the
frames last, `[C, N, M, V, T]`, which makes the products over joints much faster on CPUs, because frames fill vectors
and 25 joints do not.

`tests/test_predictor` compares every twin with its backbone, in float64 to 1e-11.

To add a twin: a subclass of the backbone (see `backbones.Twin`) and one line in `TWINS`.
"""

from collections.abc import Mapping

import flax.linen as nn

from mmcl_jax.models.folded.backbones import TWINS, Twin

__all__ = ["TWINS", "Twin", "fold", "has_twin", "twin_of"]


def has_twin(backbone: nn.Module) -> bool:
    """Whether the backbone has a twin."""
    return type(backbone) in TWINS


def twin_of(backbone: nn.Module) -> Twin:
    """The backbone's twin, which takes the variables that `fold` returns. Raises: KeyError if it has none."""
    return TWINS[type(backbone)].of(backbone)


def fold(backbone: nn.Module, variables: Mapping) -> dict[str, dict]:
    """Variables of a backbone, `params` and `batch_stats` -> those of its twin. Raises: KeyError if it has none."""
    return TWINS[type(backbone)].fold(variables)
