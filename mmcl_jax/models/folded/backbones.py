"""The twin of each backbone: a subclass with other norms, convolutions and, for CTR-GCN, another order of axes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import flax.linen as nn
import jax

from mmcl_jax.models.blocks import Block, Norm
from mmcl_jax.models.ctrgcn import CTRGCN
from mmcl_jax.models.ctrsgcn import CTRSGCN
from mmcl_jax.models.folded import graph_convs, temporal_convs
from mmcl_jax.models.folded.layers import FoldedNorm, fold_conv, norm_affine
from mmcl_jax.models.hdgcn import HDGCN
from mmcl_jax.models.infogcn import InfoGCN

Fold = Callable[[Mapping, Mapping], dict]
"""Takes `params` and `batch_stats` of a module; returns `params` of its counterpart in the twin."""


class Twin(nn.Module):
    """What the twins have in common: a base class of each, before the class of the backbone.

    Class attributes:
      fold_graph_conv: folds the graph convolution of a block.
      fold_temporal_conv: folds the temporal convolution of a block.
    """

    fold_graph_conv: ClassVar[Fold]
    fold_temporal_conv: ClassVar[Fold]

    @classmethod
    def of(cls, backbone: nn.Module) -> Self:
        """The twin of a backbone: the same fields."""
        fields = [field.name for field in dataclasses.fields(backbone) if field.name not in ("parent", "name")]
        return cls(**{name: getattr(backbone, name) for name in fields})

    @classmethod
    def fold(cls, variables: Mapping) -> dict[str, dict]:
        """Variables of the backbone, `params` and `batch_stats` -> those of the twin."""
        params, batch_stats = dict(variables["params"]), dict(variables["batch_stats"])
        scale, bias = norm_affine(params, batch_stats, "data_bn")
        params["data_bn"] = {"scale": scale, "bias": bias}
        del batch_stats["data_bn"]
        for name in [name for name in params if name.startswith("blocks_")]:
            params[name] = cls._fold_block(params[name], batch_stats.pop(name))
        return {"params": params, "batch_stats": batch_stats}

    @classmethod
    def _fold_block(cls, params: Mapping, batch_stats: Mapping) -> dict[str, dict]:
        folded = {
            "gcn": cls.fold_graph_conv(params["gcn"], batch_stats["gcn"]),
            "tcn": cls.fold_temporal_conv(params["tcn"], batch_stats["tcn"]),
        }
        if "residual" in params:
            folded["residual"] = fold_conv(params["residual"], *norm_affine(params, batch_stats, "residual_bn"))
        return folded

    @property
    def norm(self) -> Norm:
        return FoldedNorm


class FramesLastBlock(Block):
    """`Block` for features with the frames last, `[C, N, M, V, T]`."""

    frames_axis: ClassVar[int] = -1


class FoldedCTRGCN(Twin, CTRGCN):
    block = FramesLastBlock
    temporal_conv = temporal_convs.FramesLastTemporalConv
    fold_graph_conv = staticmethod(graph_convs.fold_ctrgcn)
    fold_temporal_conv = staticmethod(temporal_convs.fold_multi_scale)

    def graph_conv(self, number: int) -> Callable[..., nn.Module]:
        del number  # the same in every block
        return graph_convs.FramesLastGraphConv

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        """Embedded bodies `[C', N, M, T, V]` -> features `[N, M, T', V, C'']`; inside, the frames are last."""
        x = x.swapaxes(-1, -2)
        for block in self.blocks:
            x = block(x, train)
        return x.swapaxes(-1, -2).transpose(1, 2, 3, 4, 0)


class FoldedCTRSGCN(Twin, CTRSGCN):
    fold_graph_conv = staticmethod(graph_convs.fold_ctrsgcn)
    fold_temporal_conv = staticmethod(temporal_convs.fold_normed)


class FoldedHDGCN(Twin, HDGCN):
    temporal_conv = temporal_convs.MultiScaleTemporalConv
    fold_graph_conv = staticmethod(graph_convs.fold_hdgcn)
    fold_temporal_conv = staticmethod(temporal_convs.fold_multi_scale)


class FoldedInfoGCN(Twin, InfoGCN):
    temporal_conv = temporal_convs.RectifiedTemporalConv
    fold_graph_conv = staticmethod(graph_convs.fold_infogcn)
    fold_temporal_conv = staticmethod(temporal_convs.fold_rectified)


TWINS: dict[type[nn.Module], type[Twin]] = {
    CTRGCN: FoldedCTRGCN,
    CTRSGCN: FoldedCTRSGCN,
    HDGCN: FoldedHDGCN,
    InfoGCN: FoldedInfoGCN,
}
