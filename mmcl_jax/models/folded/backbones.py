"""The twin of each backbone: a subclass with other norms, convolutions and, for CTR-GCN, another order of axes."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import flax.linen as nn
import jax

from mmcl_jax.models.blocks import Block, Norm
from mmcl_jax.models.ctrgcn import CTRGCN
from mmcl_jax.models.ctrsgcn import CTRSGCN
from mmcl_jax.models.folded import graph_convs, temporal_convs
from mmcl_jax.models.folded.layers import FoldedNorm
from mmcl_jax.models.hdgcn import HDGCN
from mmcl_jax.models.infogcn import InfoGCN

Fold = Callable[[Mapping, Mapping], dict]
"""Takes `params` and `batch_stats` of a module; returns `params` of its counterpart in the twin."""


class Twin(nn.Module):
    """What the twins have in common. Mixed in before the backbone's class.

    Class attributes:
      fold_graph_conv: folds the graph convolution of a block.
      fold_temporal_conv: folds the temporal convolution of a block.
    """

    fold_graph_conv: ClassVar[Fold]
    fold_temporal_conv: ClassVar[Fold]

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
