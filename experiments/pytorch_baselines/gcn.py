"""CTR-GCN (Chen et al., ICCV 2021) and CTRS-GCN, the static "strong baseline": ten blocks, mean pool, classifier.

Clips are `[N, C, T, V, M]`. Inside the model, bodies are separate clips, `[N M, C, T, V]`. Attribute names are those of
the released state dicts.
"""

import functools
from collections.abc import Callable

import torch
from torch import nn

WIDTHS = (1, 1, 1, 1, 2, 2, 2, 4, 4, 4)  # channels of the ten blocks, in multiples of base_channels
STRIDES = (1, 1, 1, 1, 2, 1, 1, 2, 1, 1)
DILATIONS = (1, 2)
TEMPORAL_KERNEL = 5


def _conv(channels_in: int, channels: int, kernel: int = 1, **options) -> nn.Conv2d:
    """A convolution over frames only, initialized by its fan-out."""
    conv = nn.Conv2d(channels_in, channels, (kernel, 1), **options)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    nn.init.zeros_(conv.bias)
    return conv


class TemporalConv(nn.Module):
    """Convolution over frames and batch norm: `[B, C_in, T, V]` -> `[B, channels, ceil(T / stride), V]`."""

    def __init__(self, channels_in: int, channels: int, kernel: int = TEMPORAL_KERNEL, stride: int = 1, dilation=1):
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = _conv(
            channels_in, channels, kernel, stride=(stride, 1), padding=(padding, 0), dilation=(dilation, 1)
        )
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x))


class MultiScaleTemporalConv(nn.Module):
    """Two dilated convolutions, a max pool and a 1x1 convolution; each has a quarter of the channels."""

    dilated: type[TemporalConv] = TemporalConv

    def __init__(self, channels: int, stride: int):
        super().__init__()
        width = channels // 4

        def reduced(*following: nn.Module) -> nn.Sequential:
            return nn.Sequential(_conv(channels, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True), *following)

        self.branches = nn.ModuleList(
            [
                *(reduced(self.dilated(width, width, stride=stride, dilation=dilation)) for dilation in DILATIONS),
                reduced(nn.MaxPool2d((3, 1), (stride, 1), (1, 0)), nn.BatchNorm2d(width)),
                nn.Sequential(_conv(channels, width, stride=(stride, 1)), nn.BatchNorm2d(width)),
            ]
        )
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class GraphConv(nn.Module):
    """The part that both graph convolutions share: batch norm with scale 1e-6 at start, residual, ReLU.

    A subclass has `aggregate`, `[B, C_in, T, V]` -> `[B, channels, T, V]`.
    """

    def add_output(self, channels_in: int, channels: int) -> None:
        """Adds the layers after `aggregate`. Subclasses call it last, which keeps the released order of parameters."""
        self.down = nn.Identity()
        if channels_in != channels:
            self.down = nn.Sequential(_conv(channels_in, channels), nn.BatchNorm2d(channels))
        self.bn = nn.BatchNorm2d(channels)
        nn.init.constant_(self.bn.weight, 1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu_(self.bn(self.aggregate(x)).add_(self.down(x)))


class TopologySubset(nn.Module):
    """One subset of CTR-GC: every channel of every clip has its own topology over the joints."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        width = 8 if channels_in <= 9 else channels_in // 8
        self.conv1 = _conv(channels_in, width)
        self.conv2 = _conv(channels_in, width)
        self.conv3 = _conv(channels_in, channels)
        self.conv4 = _conv(width, channels)

    def forward(self, x: torch.Tensor, mean: torch.Tensor, shared: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """`x` `[B, C_in, T, V]`, its mean over frames `[B, C_in, 1, V]`, adjacency `[V, V]`."""
        distance = torch.tanh(self.conv1(mean).transpose(2, 3) - self.conv2(mean))  # [B, R, U, V]
        topology = torch.addcmul(shared, self.conv4(distance), alpha)  # [B, channels, U, V]
        return self.conv3(x) @ topology.transpose(2, 3)


class ReleasedTopologySubset(TopologySubset):
    """The same function in the order of the released code: relation branches on all frames, then their mean."""

    def forward(self, x: torch.Tensor, mean: torch.Tensor, shared: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        del mean
        receiver, sender = self.conv1(x).mean(-2), self.conv2(x).mean(-2)
        distance = torch.tanh(receiver.unsqueeze(-1) - sender.unsqueeze(-2))  # [B, R, U, V]
        topology = self.conv4(distance) * alpha + shared
        return torch.einsum("ncuv,nctv->nctu", topology, self.conv3(x))


class TopologyRefinedConv(GraphConv):
    """CTR-GC with three subsets; `adjacency` `[3, V, V]` is the initial value of the shared topology."""

    subset: type[TopologySubset] = TopologySubset

    def __init__(self, channels_in: int, channels: int, adjacency: torch.Tensor):
        super().__init__()
        self.PA = nn.Parameter(adjacency.clone())
        self.alpha = nn.Parameter(torch.zeros(1))
        self.convs = nn.ModuleList(self.subset(channels_in, channels) for _ in adjacency)
        self.add_output(channels_in, channels)

    def aggregate(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=2, keepdim=True)  # 1x1 convolutions commute with the mean
        subsets = zip(self.convs, self.PA, strict=True)
        return functools.reduce(torch.Tensor.add_, (subset(x, mean, shared, self.alpha) for subset, shared in subsets))


class ReleasedTopologyRefinedConv(TopologyRefinedConv):
    """CTR-GC in the order of the released code."""

    subset = ReleasedTopologySubset


class StaticConv(GraphConv):
    """CTRS-GCN: one learnable, normalized adjacency per subset, the same for all clips and channels."""

    def __init__(self, channels_in: int, channels: int, adjacency: torch.Tensor):
        super().__init__()
        subsets = len(adjacency)
        self.PA = nn.Parameter(adjacency.clone())
        self.conv_d = nn.ModuleList(_conv(channels_in, channels) for _ in range(subsets))
        for conv in self.conv_d:
            nn.init.normal_(conv.weight, 0.0, (2 / (channels * channels_in * subsets)) ** 0.5)
        self.add_output(channels_in, channels)

    def aggregate(self, x: torch.Tensor) -> torch.Tensor:
        adjacency = self.PA / (self.PA.norm(dim=1, keepdim=True) + 1e-4)
        subsets = zip(self.conv_d, adjacency, strict=True)
        return functools.reduce(torch.Tensor.add_, (conv(x @ weights) for conv, weights in subsets))


class Block(nn.Module):
    """Graph convolution, temporal convolution, residual: `[B, C_in, T, V]` -> `[B, channels, ceil(T / stride), V]`."""

    def __init__(self, graph_conv: nn.Module, temporal_conv: nn.Module, residual: nn.Module | None):
        super().__init__()
        self.gcn1 = graph_conv
        self.tcn1 = temporal_conv
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.tcn1(self.gcn1(x))
        if self.residual is not None:
            y += self.residual(x)
        return torch.relu_(y)


class TenBlocks(nn.Module):
    """The part that both models share. A subclass names the convolutions of a block.

    Args:
      num_classes: length of the logits.
      adjacency: `[..., V, V]`, the initial value in the graph convolutions.
      num_bodies: M of the clips.
      in_channels: C of the clips.
      base_channels: channels of blocks 1 to 4, a multiple of 4; blocks 5 to 7 have twice, 8 to 10 four times as many.
    """

    graph_conv: Callable[[int, int, torch.Tensor], nn.Module]
    temporal_conv: Callable[[int, int], nn.Module]

    def __init__(
        self,
        num_classes: int,
        adjacency: torch.Tensor,
        num_bodies: int = 2,
        in_channels: int = 3,
        base_channels: int = 64,
    ):
        super().__init__()
        self.data_bn = nn.BatchNorm1d(num_bodies * adjacency.shape[-1] * in_channels)
        channels_in = in_channels
        for number, (width, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True), start=1):
            channels = width * base_channels
            block = Block(
                self.graph_conv_of(number)(channels_in, channels, adjacency),
                self.temporal_conv(channels, stride),
                None if number == 1 else _residual(channels_in, channels, stride),
            )
            self.add_module(f"l{number}", block)
            channels_in = channels
        self.fc = nn.Linear(channels_in, num_classes)
        nn.init.normal_(self.fc.weight, 0.0, (2 / num_classes) ** 0.5)

    def graph_conv_of(self, number: int) -> Callable[[int, int, torch.Tensor], nn.Module]:
        """What makes the graph convolution of block `number`, from 1."""
        del number  # the same in every block
        return self.graph_conv

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips `[N, C, T, V, M]` -> features pooled over bodies, frames and joints, `[N, 4 * base_channels]`."""
        count, channels, frames, joints, bodies = clips.shape
        x = clips.permute(0, 4, 3, 1, 2).reshape(count, -1, frames)
        x = self.data_bn(x).view(count, bodies, joints, channels, frames)
        x = x.permute(0, 1, 3, 4, 2).reshape(count * bodies, channels, frames, joints)
        for number in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"l{number}")(x)
        return x.view(count, bodies, x.shape[1], -1).mean(dim=(1, 3))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips `[N, C, T, V, M]` -> logits `[N, num_classes]`."""
        return self.fc(self.features(clips))


def _residual(channels_in: int, channels: int, stride: int) -> nn.Module:
    if channels_in == channels and stride == 1:
        return nn.Identity()
    return TemporalConv(channels_in, channels, kernel=1, stride=stride)


class CTRGCN(TenBlocks):
    """CTR-GCN; 1,462,092 parameters at 120 classes, 25 joints, two bodies."""

    graph_conv = TopologyRefinedConv
    temporal_conv = MultiScaleTemporalConv


class ReleasedCTRGCN(CTRGCN):
    """CTR-GCN in the order of the released code, as its users run it: the same function, slower."""

    graph_conv = ReleasedTopologyRefinedConv


class CTRSGCN(TenBlocks):
    """CTRS-GCN; 2,108,322 parameters at 120 classes, 25 joints, two bodies.

    Its initial adjacency is the identity: pass `torch.eye(V).repeat(3, 1, 1)`.
    """

    graph_conv = StaticConv

    @staticmethod
    def temporal_conv(channels: int, stride: int) -> nn.Module:
        return TemporalConv(channels, channels, stride=stride)
