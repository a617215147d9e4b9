"""HD-GCN (Lee et al., ICCV 2023) in the released order of operations.

Clips are `[N, C, T, V, M]`. Inside the model, bodies are separate clips, `[B, C, T, V]`, B = N M. Attribute names are
those of the released state dicts. L is the number of layers of the joint hierarchy, K = 3 that of subsets of edges.
"""

import functools
from collections.abc import Callable

import torch
from torch import nn

from experiments.pytorch_baselines.gcn import GraphConv, MultiScaleTemporalConv, TemporalConv, TenBlocks

JOINT_NEIGHBORS = 5
LAYER_NEIGHBORS = 3


class BiasedTemporalConv(TemporalConv):
    """The convolution over frames whose bias is a parameter of its own, `[1, channels, 1, 1]`."""

    def __init__(self, channels_in: int, channels: int, **options):
        super().__init__(channels_in, channels, **options)
        self.conv.register_parameter("bias", None)
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x) + self.bias)


class BiasedMultiScaleTemporalConv(MultiScaleTemporalConv):
    """The temporal convolution of HD-GCN."""

    dilated = BiasedTemporalConv


class EdgeConv(nn.Module):
    """Each node's maximum over the nodes nearest to it in feature space: `[B, C, V]` -> `[B, C, V]`."""

    def __init__(self, channels: int, neighbors: int):
        super().__init__()
        self.neighbors = neighbors
        self.conv = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.LeakyReLU(0.2, inplace=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, channels, nodes = x.shape
        squares = x.square().sum(1)
        nearness = 2 * x.transpose(1, 2) @ x - squares[:, :, None] - squares[:, None]  # minus the squared distance
        index = nearness.topk(min(self.neighbors, nodes), dim=-1).indices.reshape(count, 1, -1)
        near = x.gather(2, index.expand(-1, channels, -1)).view(count, channels, nodes, -1)  # [B, C, V, neighbors]
        own = x.unsqueeze(-1).expand_as(near)
        return self.conv(torch.cat([near - own, own], dim=1)).amax(-1)


class LayerAttention(nn.Module):
    """Weighs the layers of the hierarchy and adds them up: `[B, channels, L, T, V]` -> `[B, channels, T, V]`.

    `members` `[L, V]` is 1 where a joint belongs to a layer.
    """

    def __init__(self, channels: int, members: torch.Tensor):
        super().__init__()
        width = channels // 4
        self.joints = [row.nonzero().flatten().tolist() for row in members]
        self.conv_down = nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.edge_conv = EdgeConv(width, LAYER_NEIGHBORS)
        self.aggregate = nn.Conv1d(width, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        most = self.conv_down(x.amax(3))  # [B, width, L, V]
        layers = torch.stack([most[:, :, i, joints].mean(-1) for i, joints in enumerate(self.joints)], dim=2)
        weights = torch.sigmoid(self.aggregate(self.edge_conv(layers)))  # [B, channels, L]
        return (x * weights[..., None, None]).sum(2)


class HierarchicalConv(GraphConv):
    """The graph convolution of HD-GCN.

    Args:
      channels_in, channels: of input and output.
      adjacency: `[L, K, V, V]`, the initial value of the topologies.
      attention: whether layers are weighed.
    """

    def __init__(self, channels_in: int, channels: int, adjacency: torch.Tensor, *, attention: bool):
        super().__init__()
        layers, subsets = adjacency.shape[:2]
        width = channels // (subsets + 1)
        self.PA = nn.Parameter(adjacency.clone())
        self.conv_down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels_in, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            for _ in range(layers)
        )
        self.conv = nn.ModuleList(_layer(width, subsets) for _ in range(layers))
        self.conv_d = self.conv[-1]  # a second name in the released state dicts
        if attention:
            self.aha = LayerAttention(channels, adjacency[:, 0].diagonal(dim1=-2, dim2=-1))
        self.add_output(channels_in, channels)

    def aggregate(self, x: torch.Tensor) -> torch.Tensor:
        layers = torch.stack([self._layer(layer, x) for layer in range(len(self.conv))], dim=2)
        return self.aha(layers) if hasattr(self, "aha") else layers.sum(2)

    def _layer(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """`[B, C_in, T, V]` -> `[B, channels, T, V]` of one layer: its subsets, then its edge convolution."""
        x = self.conv_down[layer](x)
        *subsets, edge = self.conv[layer]
        parts = [
            convolution(torch.einsum("nctu,vu->nctv", x, topology))
            for convolution, topology in zip(subsets, self.PA[layer], strict=True)
        ]
        similar = edge(x.mean(2)).unsqueeze(2)
        return torch.cat([*parts, similar.expand(-1, -1, x.shape[2], -1)], dim=1)


def _layer(width: int, subsets: int) -> nn.ModuleList:
    convolutions = [nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)) for _ in range(subsets)]
    return nn.ModuleList([*convolutions, EdgeConv(width, JOINT_NEIGHBORS)])


class HDGCN(TenBlocks):
    """HD-GCN; 1,675,400 parameters at 120 classes, 25 joints, two bodies and six layers.

    `adjacency` is `[L, 3, V, V]`, `mmcl_jax.models.graphs.hierarchical_adjacency` of the layout.
    """

    temporal_conv = BiasedMultiScaleTemporalConv

    def graph_conv_of(self, number: int) -> Callable[[int, int, torch.Tensor], nn.Module]:
        """The first block only adds the layers up."""
        return functools.partial(HierarchicalConv, attention=number > 1)
