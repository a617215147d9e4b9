"""Info-GCN: self-attention gives every frame its own topology, and a latent vector is classified.

Chi et al., InfoGCN: Representation Learning for Human Skeleton-based Action Recognition, CVPR 2022. The skeleton comes
in as positions relative to ancestors (`mmcl_jax.models.graphs.relative_positions`). Features are channel-major,
`[C, N, M, T, V]`. The convolutions of the three heads are stored as one, so that they are one matrix product;
`mmcl_jax.pytorch.names` maps them to the published names.
"""

import functools
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models import losses
from mmcl_jax.models.blocks import (
    Backbone,
    Block,
    MultiScaleTemporalConv,
    Norm,
    Stages,
    add_residual,
    normalize_joints,
    run_blocks,
)
from mmcl_jax.models.initializers import (
    Initializer,
    branch_normal,
    classifier_normal,
    default_init,
    linear_uniform,
)
from mmcl_jax.models.layers import BatchNorm, Conv1x1, pool
from mmcl_jax.models.precision import at_least_float32
from mmcl_jax.runtime.errors import ConfigError

NINE_STAGES: Stages = ((1, 1), (1, 1), (1, 1), (2, 2), (2, 1), (2, 1), (4, 2), (4, 1), (4, 1))
HEADS = 3
_LARGEST_DEVIATION = 100.0


class SelfAttention(nn.Module):
    """How much each joint attends to each, in every frame of every body: `softmax(Q K^T / sqrt(d))`.

    `[C, N, M, T, V]` -> `[HEADS, N, M, T, U, V]`, float32 or wider; the weights with which joint u receives from the
    joints v sum to one. Queries and keys have d = C // 8 channels, but at least one, so that models narrower than the
    published one work too.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[0]
        width = max(1, channels // 8)
        norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, reduction_axes=0, feature_axes=0, name="norm")
        x = Conv1x1(2 * HEADS * width, initializers=_attention_init, name="queries_keys")(norm(at_least_float32(x)))
        queries, keys = x.reshape(2, HEADS, width, *x.shape[1:])
        return nn.softmax(jnp.einsum("hdnmtu,hdnmtv->hnmtuv", queries * width**-0.5, keys))


def _attention_init(fan_in: int, fan_out: int) -> tuple[Initializer, Initializer]:
    del fan_out
    return nn.initializers.normal(1.0), linear_uniform(fan_in)


class GraphConv(nn.Module):
    """Self-attention graph convolution (SA-GC): `Z = sum over heads h of (A_h * attention_h(X)) X W_h`.

    `A_h`, `shared_topology`, is one for all clips and frames; batch norm, residual and ReLU follow.
    `[C_in, N, M, T, V]` -> `[channels, N, M, T, V]`.

    Attributes:
      channels: of the output.
      norm: makes a batch norm.
    """

    channels: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels_in, joints = x.shape[0], x.shape[-1]
        shared = self.param("shared_topology", lambda _key: jnp.tile(jnp.eye(joints), (HEADS, 1, 1)))
        topology = (SelfAttention(name="attention")(x) * shared[:, None, None, None]).astype(x.dtype)
        # A product for each head: with one for all, XLA would transpose the result.
        gathered = jnp.stack([jnp.einsum("nmtuv,cnmtv->cnmtu", topology[head], x) for head in range(HEADS)])

        kernel = self.param(
            "kernel", branch_normal(HEADS, channels_in, self.channels), (HEADS, channels_in, self.channels)
        )
        bias = self.param("bias", nn.initializers.zeros, (HEADS, self.channels))
        z = jnp.einsum("hio,hinmtv->onmtv", kernel.astype(x.dtype), gathered)
        z = z + bias.sum(axis=0).astype(x.dtype)[:, None, None, None, None]
        return add_residual(z, x, self.norm, train)


class RectifiedTemporalConv(nn.Module):
    """The multi-scale temporal convolution with a ReLU, initialized as PyTorch does by default.

    `[channels, N, M, T, V]` -> `[channels, N, M, ceil(T / stride), V]`; attributes as in `MultiScaleTemporalConv`.
    """

    channels: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        convolution = MultiScaleTemporalConv(
            self.channels, self.stride, self.norm, default_init, nn.initializers.ones, name="convolution"
        )
        return nn.relu(convolution(x, train))


class JointEmbedding(nn.Module):
    """Embeds the relative positions of the joints, and adds which joint each is: `[..., V, C]` -> `[..., V, channels]`.

    Attributes:
      channels: of the embedding.
      relative_positions: float32 `[V, V]`, takes positions to relative ones.
      coordinates: how many of the C channels are a position; the others, such as a confidence, are embedded unchanged.
    """

    channels: int
    relative_positions: np.ndarray
    coordinates: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        joints, channels_in = x.shape[-2:]
        init = linear_uniform(channels_in)
        relative = jnp.einsum("uv,nmtvc->nmtuc", self.relative_positions, x[..., : self.coordinates])
        x = jnp.concatenate([relative, x[..., self.coordinates :]], axis=-1)
        x = nn.Dense(self.channels, kernel_init=init, bias_init=init, name="joint")(x)
        return x + self.param("position", nn.initializers.normal(1.0), (joints, self.channels))


class InfoGCN(Backbone):
    """Info-GCN: nine blocks, and a head that classifies a latent vector, which is random in training.

    Training pulls the mean of each class's latent vectors to a prior of its own. The priors are the rows of an
    orthogonal matrix that is drawn once and never trained: `z_prior`, float32 `[num_classes, feature_width]`, in
    `batch_stats`.

    Attributes:
      num_classes: length of the logits.
      relative_positions: float32 `[V, V]`, `mmcl_jax.models.graphs.relative_positions` of the layout.
      base_channels: channels of the first blocks, a multiple of 4.
      batch_norm_group_size: clips that are normalized together, None: the batch (see `layers.BatchNorm`).
      latent_noise: the deviation of the latent vector is `exp(latent_noise * logvar)` in training; 0: none, the mean is
        classified, as in evaluation.
      label_smoothing: share of the target that all classes get in equal parts.
      mmd_weights: weights of the norm of the latent vectors' mean, and of the classes' distance from their priors.
      prior_gain: length of the rows of `z_prior` (if it has no more rows than columns).
      coordinates: how many of a joint's channels are a position.
      dtype: as in `blocks.TenBlocks`.
      stages: channels and stride of each block.

    Raises:
      ConfigError: `latent_noise`, `label_smoothing`, `mmd_weights` or `prior_gain` is out of its range.
    """

    num_classes: int
    relative_positions: np.ndarray
    base_channels: int = 64
    batch_norm_group_size: int | None = None
    latent_noise: float = 0.1
    label_smoothing: float = 0.1
    mmd_weights: tuple[float, float] = (1e-4, 1e-1)
    prior_gain: float = 3.0
    coordinates: int = 3
    dtype: jnp.dtype | None = None
    stages: Stages = NINE_STAGES

    weighs_bodies: ClassVar[bool] = True
    temporal_conv: ClassVar[type[nn.Module]] = RectifiedTemporalConv

    def __post_init__(self):
        super().__post_init__()
        if self.latent_noise < 0:
            raise ConfigError(f"latent_noise {self.latent_noise} is negative; 0 switches sampling off")
        if not 0 <= self.label_smoothing <= 1:
            raise ConfigError(f"label_smoothing {self.label_smoothing} is not within 0 and 1")
        if len(self.mmd_weights) != 2 or min(self.mmd_weights) < 0:
            raise ConfigError(f"mmd_weights {self.mmd_weights} are not two weights, each 0 or more")
        if self.prior_gain <= 0:
            raise ConfigError(f"prior_gain {self.prior_gain} is not positive")

    @property
    def norm(self) -> Norm:
        return functools.partial(BatchNorm, group_size=self.batch_norm_group_size, channel_major=True)

    @property
    def feature_width(self) -> int:
        """Channels of the features, and length of the latent vectors."""
        return self.stages[-1][0] * self.base_channels

    def setup(self):
        width = self.feature_width
        self.embedding = JointEmbedding(self.base_channels, self.relative_positions, self.coordinates)
        self.data_bn = self.norm()
        self.blocks = [
            Block(channels * self.base_channels, stride, True, GraphConv, self.temporal_conv, self.norm)
            for channels, stride in self.stages
        ]
        dense = functools.partial(nn.Dense, bias_init=linear_uniform(width))
        hidden = functools.partial(dense, width, kernel_init=nn.initializers.variance_scaling(2, "fan_avg", "uniform"))
        self.fc, self.fc_mu, self.fc_logvar = hidden(), hidden(), hidden()
        self.decoder = dense(self.num_classes, kernel_init=classifier_normal(self.num_classes))
        self.z_prior = self.variable("batch_stats", "z_prior", self._draw_prior)

    def _draw_prior(self) -> jax.Array:
        draw = nn.initializers.orthogonal(self.prior_gain)
        return draw(self.make_rng("params"), (self.num_classes, self.feature_width))

    def embed(self, x: jax.Array, train: bool) -> jax.Array:
        return normalize_joints(self.data_bn, self.embedding(x), train).astype(self.dtype or x.dtype)

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        return run_blocks(self.blocks, x, train)

    def head(self, features: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features `[N, M, T', V, C']` -> logits `[N, num_classes]`, and what the loss needs in addition to them.

        Auxiliary outputs: `z` `[N, C']`, the latent vectors that were classified, and `z_prior` `[num_classes, C']`.
        With `latent_noise`, training draws from the random stream `dropout`.
        """
        hidden = nn.relu(self.fc(pool(features)))
        z, logvar = self.fc_mu(hidden), self.fc_logvar(hidden)
        if train and self.latent_noise:
            deviation = jnp.minimum(jnp.exp(self.latent_noise * logvar), _LARGEST_DEVIATION)
            z = z + deviation * jax.random.normal(self.make_rng("dropout"), z.shape, z.dtype)
        return self.decoder(z), {"z": z, "z_prior": self.z_prior.value}

    @nn.nowrap
    def classification_loss(
        self,
        logits: jax.Array,
        aux: dict[str, jax.Array],
        labels: jax.Array,
        *,
        weights: jax.Array | None = None,
    ) -> jax.Array:
        """Cross entropy with label smoothing, and the two terms on the latent vectors. Returns a scalar.

        `weights`, float `[N]`, are what each clip counts in the cross entropy.
        """
        norm_weight, prior_weight = self.mmd_weights
        loss = losses.smoothed_cross_entropy(logits, labels, self.label_smoothing, weights)
        loss += norm_weight * losses.mean_norm(aux["z"])
        return loss + prior_weight * losses.class_prior_distance(aux["z"], aux["z_prior"], labels)
