"""Inception-v3, the CNN that the released code trains beside the skeleton model, with torchvision's names.

It has no auxiliary head; the released code discards the output of that head.
"""

import torch
import torch.nn.functional as F
from torch import nn

from mmcl_jax.models.inception import AVG_POOL, BLOCKS, MAX_POOL, STEM, Conv, convolutions


class ConvNormRelu(nn.Module):
    """Convolution without bias, batch norm (epsilon 1e-3), ReLU: `[N, C_in, H, W]` -> `[N, features, H', W']`."""

    def __init__(self, channels_in: int, spec: Conv):
        super().__init__()
        padding = tuple(size // 2 for size in spec.kernel) if spec.padding == "SAME" else 0
        self.conv = nn.Conv2d(channels_in, spec.features, spec.kernel, spec.stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(spec.features, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Branches(nn.Module):
    """Branches over one input, concatenated: `[N, C_in, H, W]` -> `[N, channels, H', W']`."""

    def __init__(self, channels_in: int, branches: tuple):
        super().__init__()
        self.branches, self.channels = branches, 0
        for branch in branches:
            width = channels_in
            for step in branch:
                if isinstance(step, tuple) and not isinstance(step, Conv):
                    for spec in step:
                        self.add_module(spec.name, ConvNormRelu(width, spec))
                    width = sum(spec.features for spec in step)
                elif isinstance(step, Conv):
                    self.add_module(step.name, ConvNormRelu(width, step))
                    width = step.features
            self.channels += width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._branch(x, branch) for branch in self.branches], dim=1)

    def _branch(self, x: torch.Tensor, branch: tuple) -> torch.Tensor:
        for step in branch:
            if step == AVG_POOL:
                x = F.avg_pool2d(x, 3, stride=1, padding=1)
            elif step == MAX_POOL:
                x = F.max_pool2d(x, 3, stride=2)
            else:
                x = torch.cat([self.get_submodule(spec.name)(x) for spec in convolutions((step,))], dim=1)
        return x


class InceptionV3(nn.Module):
    """Normalized images `[N, 3, H, W]`, at least 75 pixels per side, -> logits `[N, num_classes]`.

    `kept` is the fraction of features that dropout keeps in training. It is a buffer, so it may change without
    recompiling.
    """

    def __init__(self, num_classes: int = 1000):
        super().__init__()
        channels = 3
        for step in STEM:
            if step != MAX_POOL:
                self.add_module(step.name, ConvNormRelu(channels, step))
                channels = step.features
        for name, branches in BLOCKS.items():
            block = Branches(channels, branches)
            self.add_module(name, block)
            channels = block.channels
        self.fc = nn.Linear(channels, num_classes)
        self.register_buffer("kept", torch.tensor(0.5), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in STEM:
            x = F.max_pool2d(x, 3, stride=2) if step == MAX_POOL else self.get_submodule(step.name)(x)
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        x = x.mean(dim=(2, 3))
        if self.training:
            x = x * (torch.rand_like(x) < self.kept) / self.kept
        return self.fc(x)
