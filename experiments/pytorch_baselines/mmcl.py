"""MMCL with CTR-GCN (Liu et al., ACM MM 2024): the FAM's MLP, the FRM, the three losses, one step of SGD."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from experiments.pytorch_baselines.gcn import CTRGCN, ReleasedTopologyRefinedConv


class Outputs(NamedTuple):
    """Outputs of a training forward pass: logits and refined logits `[N, K]`, both modalities' features `[N, C']`."""

    logits: torch.Tensor
    refined_logits: torch.Tensor
    skeleton_features: torch.Tensor
    image_features: torch.Tensor


class FeatureAlignment(nn.Module):
    """M_align of eq. 3: image features `[N, D]` -> `[N, width]`."""

    def __init__(self, image_width: int, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(image_width, width), nn.ReLU(inplace=True), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(x)


class MMCL(CTRGCN):
    """CTR-GCN with the Feature Alignment and Feature Refinement Modules; the CNN is separate, as released.

    Args:
      num_classes, adjacency, **backbone: see `gcn.TenBlocks`.
      image_width: length of the CNN's output (Inception-v3: 1000 logits).
      text_width: length of a text feature.
    """

    def __init__(
        self, num_classes: int, adjacency: torch.Tensor, *, image_width: int = 1000, text_width: int = 3, **backbone
    ):
        super().__init__(num_classes, adjacency, **backbone)
        # Diagonals of the two matrices of eq. 8.
        self.PosMatrix = nn.Parameter(torch.ones(num_classes))
        self.NegMatrix = nn.Parameter(torch.ones(num_classes))
        self.mlp = nn.Sequential(nn.Linear(text_width, 64), nn.ReLU(inplace=True), nn.Linear(64, 2))  # phi of eq. 7
        self.FAM_Aligh = FeatureAlignment(image_width, self.fc.in_features)

    def forward(self, clips: torch.Tensor, image_features: torch.Tensor, text: torch.Tensor) -> Outputs:
        """Clips `[N, C, T, V, M]`, the CNN's output `[N, image_width]`, text features `[N, text_width]`."""
        features = self.features(clips)
        logits = self.fc(features)
        weights = self.mlp(text).softmax(dim=1)
        refined_logits = logits * (weights @ torch.stack((self.PosMatrix, self.NegMatrix)))
        return Outputs(logits, refined_logits, features, self.FAM_Aligh(image_features))


class ReleasedMMCL(MMCL):
    """MMCL with CTR-GCN in the order of the released code: the same function, slower."""

    graph_conv = ReleasedTopologyRefinedConv


def contrastive_loss(a: torch.Tensor, b: torch.Tensor, temperature: float = 0.4) -> torch.Tensor:
    """Symmetric contrastive loss of two modalities' features `[N, D]`, as released (from GRACE).

    The negatives of a clip are the other clips of both modalities.
    """
    a, b = F.normalize(a), F.normalize(b)
    across = a @ b.T / temperature
    positive = across.diagonal()

    def one_way(x: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        within = (x @ x.T / temperature).fill_diagonal_(-torch.inf)
        return (torch.cat((across, within), dim=1).logsumexp(dim=1) - positive).mean()

    return (one_way(a, across) + one_way(b, across.T)) / 2


def mmcl_loss(outputs: Outputs, labels: torch.Tensor, contrastive_weight=0.1, refinement_weight=0.2) -> torch.Tensor:
    """L_cls + lambda_1 L_C + lambda_2 L_R (eq. 10)."""
    return (
        F.cross_entropy(outputs.logits, labels)
        + contrastive_weight * contrastive_loss(outputs.skeleton_features, outputs.image_features)
        + refinement_weight * F.cross_entropy(outputs.refined_logits, labels)
    )


def make_optimizer(
    parameters: Iterable[nn.Parameter], learning_rate: float = 0.1, weight_decay: float = 4e-4, fused: bool = False
) -> torch.optim.Optimizer:
    """The recipe's SGD. Weight decay applies to every parameter, also the CNN's. `fused` is faster on GPUs."""
    return torch.optim.SGD(
        parameters, learning_rate, momentum=0.9, weight_decay=weight_decay, nesterov=True, fused=fused
    )


def training_step(optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Takes one step on the loss that `loss()` computes; returns that loss.

    To train with a CNN, pass `lambda: mmcl_loss(model(clips, cnn(images), text), labels)` and an optimizer with the
    parameters of both.
    """
    optimizer.zero_grad()
    value = loss()
    value.backward()
    optimizer.step()
    return value.detach()
