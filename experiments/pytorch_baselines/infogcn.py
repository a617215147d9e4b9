"""Info-GCN (Chi et al., CVPR 2022) in the released order of operations, without the noise of training.

Clips are `[N, C, T, V, M]`. Inside the model, bodies are separate clips, `[B, C, T, V]`, B = N M. Attribute names are
those of the released state dicts.
"""

import torch
from torch import nn

from experiments.pytorch_baselines.gcn import GraphConv, MultiScaleTemporalConv, TemporalConv

WIDTHS = (1, 1, 1, 2, 2, 2, 4, 4, 4)  # channels of the nine blocks, in multiples of base_channels
STRIDES = (1, 1, 1, 2, 1, 1, 2, 1, 1)
HEADS = 3


class SelfAttention(nn.Module):
    """How much each joint attends to each, in every frame: `[B, C, T, V]` -> `[B T, HEADS, U, V]`."""

    def __init__(self, channels: int):
        super().__init__()
        self.width = max(1, channels // 8)
        self.to_qk = nn.Linear(channels, 2 * HEADS * self.width)
        self.ln = nn.LayerNorm(channels)
        nn.init.normal_(self.to_qk.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = self.to_qk(self.ln(x.permute(0, 2, 3, 1).contiguous())).flatten(0, 1)  # [B T, V, 2 HEADS width]
        queries, keys = (half.unflatten(2, (HEADS, self.width)).transpose(1, 2) for half in both.chunk(2, dim=2))
        return (queries @ keys.transpose(2, 3) * self.width**-0.5).softmax(-1)


class AttentionConv(GraphConv):
    """Self-attention graph convolution: the attention of each frame times a topology that all clips share."""

    def __init__(self, channels_in: int, channels: int, joints: int):
        super().__init__()
        self.shared_topology = nn.Parameter(torch.eye(joints).repeat(HEADS, 1, 1))
        self.conv_d = nn.ModuleList(nn.Conv2d(channels_in, channels, 1) for _ in range(HEADS))
        self.add_output(channels_in, channels)
        self.attn = SelfAttention(channels_in)

    def aggregate(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.shape[2]
        topology = self.attn(x) * self.shared_topology
        features = x.permute(0, 2, 3, 1).flatten(0, 1)  # [B T, V, C]
        received = (
            (topology[:, head] @ features).unflatten(0, (-1, frames)).permute(0, 3, 1, 2).contiguous()
            for head in range(HEADS)
        )
        first, *others = (conv(z) for conv, z in zip(self.conv_d, received, strict=True))
        for other in others:
            first = first + other
        return first


class Block(nn.Module):
    """Graph convolution, temporal convolution, residual: `[B, C_in, T, V]` -> `[B, channels, ceil(T / stride), V]`."""

    def __init__(self, channels_in: int, channels: int, joints: int, stride: int):
        super().__init__()
        self.agcn = AttentionConv(channels_in, channels, joints)
        self.tcn = MultiScaleTemporalConv(channels, stride)
        self.residual = nn.Identity()
        if channels_in != channels or stride != 1:
            self.residual = TemporalConv(channels_in, channels, kernel=1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.relu(self.tcn(self.agcn(x))) + self.residual(x))


class InfoGCN(nn.Module):
    """Info-GCN; 1,572,227 parameters at 120 classes, 25 joints, two bodies.

    Args:
      num_classes: length of the logits.
      relative_positions: `[V, V]`, `mmcl_jax.models.graphs.relative_positions` of the layout.
      num_bodies: M of the clips.
      in_channels: C of the clips, all of them coordinates.
      base_channels: channels of blocks 1 to 3, a multiple of 4; blocks 4 to 6 have twice, 7 to 9 four times as many.
    """

    def __init__(
        self,
        num_classes: int,
        relative_positions: torch.Tensor,
        num_bodies: int = 2,
        in_channels: int = 3,
        base_channels: int = 64,
    ):
        super().__init__()
        joints = len(relative_positions)
        self.register_buffer("relative_positions", relative_positions, persistent=False)
        self.pos_embedding = nn.Parameter(torch.randn(1, joints, base_channels))
        self.data_bn = nn.BatchNorm1d(num_bodies * joints * base_channels)
        self.to_joint_embedding = nn.Linear(in_channels, base_channels)
        channels_in = base_channels
        for number, (width, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True), start=1):
            channels = width * base_channels
            self.add_module(f"l{number}", Block(channels_in, channels, joints, stride))
            channels_in = channels
        self.fc = nn.Linear(channels_in, channels_in)
        self.fc_mu = nn.Linear(channels_in, channels_in)
        self.fc_logvar = nn.Linear(channels_in, channels_in)  # training's noise only
        self.decoder = nn.Linear(channels_in, num_classes)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips `[N, C, T, V, M]` -> logits `[N, num_classes]` of the latent vectors' means."""
        count, _, frames, joints, bodies = clips.shape
        x = self.relative_positions @ clips.permute(0, 4, 2, 3, 1)  # [N, M, T, V, C]
        x = self.to_joint_embedding(x) + self.pos_embedding
        x = self.data_bn(x.permute(0, 1, 3, 4, 2).reshape(count, -1, frames))
        x = x.view(count * bodies, joints, -1, frames).permute(0, 2, 3, 1).contiguous()
        for number in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"l{number}")(x)
        pooled = x.view(count, bodies, x.shape[1], -1).mean(dim=(1, 3))
        return self.decoder(self.fc_mu(torch.relu(self.fc(pooled))))
