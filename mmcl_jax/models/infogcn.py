"""Info-GCN (Chi et al., CVPR 2022): self-attention gives every frame its topology; a latent bottleneck classifies.

The skeleton comes in as positions relative to ancestors (`mmcl_jax.models.graphs.relative_positions`). The three heads'
convolutions are one matrix product; `mmcl_jax.pytorch.names` maps them to the published names.
"""

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models import losses
from mmcl_jax.models.blocks import (
    Block,
    MultiScaleTemporalConv,
    add_residual,
    fold_backbone,
    fold_down,
    normalise_joints,
)
from mmcl_jax.models.layers import (
    Conv1x1,
    Initializers,
    default_init,
    fold_conv,
    linear_uniform,
    make_norm,
    norm_affine,
    pooled,
    wide,
)

WIDTHS = (1, 1, 1, 2, 2, 2, 4, 4, 4)  # channels of the nine blocks, in multiples of base_channels
STRIDES = (1, 1, 1, 2, 1, 1, 2, 1, 1)
HEADS = 3
_LARGEST_DEVIATION = 100.0


class SelfAttention(nn.Module):
    """How much each joint attends to each, in every frame of every body. Computed in float32.

    `[C, N, M, T, V]` -> `[HEADS, N, M, T, U, V]`; the weights with which joint u receives from joints v sum to one.
    Queries and keys have C // 8 channels, but at least one, so that models narrower than the published work too.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[0]
        width = max(1, channels // 8)
        norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, reduction_axes=0, feature_axes=0, name="norm")
        x = Conv1x1(2 * HEADS * width, initializers=_attention_init, name="queries_keys")(norm(wide(x)))
        queries, keys = x.reshape(2, HEADS, width, *x.shape[1:])
        return nn.softmax(jnp.einsum("hdnmtu,hdnmtv->hnmtuv", queries * width**-0.5, keys))


def _attention_init(fan_in: int, fan_out: int) -> Initializers:
    del fan_out
    return nn.initializers.normal(1.0), linear_uniform(fan_in)


class GraphConv(nn.Module):
    """Self-attention graph convolution (SA-GC): attention times a shared topology, one of each per head.

    `[C_in, N, M, T, V]` -> `[channels, N, M, T, V]`.
    """

    channels: int
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels_in, joints = x.shape[0], x.shape[-1]
        shared = self.param("shared_topology", lambda _key: jnp.tile(jnp.eye(joints), (HEADS, 1, 1)))
        topology = (SelfAttention(name="attention")(x) * shared[:, None, None, None]).astype(x.dtype)
        # A product for each head: with one for all, XLA would transpose the result.
        gathered = jnp.stack([jnp.einsum("nmtuv,cnmtv->cnmtu", topology[head], x) for head in range(HEADS)])

        init = nn.initializers.normal((2.0 / (HEADS * channels_in * self.channels)) ** 0.5)
        kernel = self.param("kernel", init, (HEADS, channels_in, self.channels))
        bias = self.param("bias", nn.initializers.zeros, (HEADS, self.channels))
        y = jnp.einsum("hio,hinmtv->onmtv", kernel.astype(x.dtype), gathered)
        y = y + bias.sum(axis=0).astype(x.dtype)[:, None, None, None, None]
        return add_residual(y, x, self.norm, train)

    @staticmethod
    def fold(params: Mapping, batch_stats: Mapping) -> dict:
        """The variables, `params`, of the same function with folded norms."""
        factor, offset = norm_affine(params, batch_stats, "bn")
        kept = {name: params[name] for name in ("attention", "shared_topology")}
        return {**kept, **fold_conv(params, factor, 0.0), "bn": {"bias": offset}, **fold_down(params, batch_stats)}


class RectifiedTemporalConv(nn.Module):
    """The multi-scale temporal convolution as Info-GCN has it: rectified, and initialised as PyTorch does by itself."""

    channels: int
    stride: int
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        convolution = MultiScaleTemporalConv(
            self.channels, self.stride, self.norm, default_init, nn.initializers.ones, name="convolution"
        )
        return nn.relu(convolution(x, train))

    @staticmethod
    def fold(params: Mapping, batch_stats: Mapping) -> dict:
        """The variables, `params`, of the same function with folded norms."""
        return {"convolution": MultiScaleTemporalConv.fold(params["convolution"], batch_stats["convolution"])}


class JointEmbedding(nn.Module):
    """Relative positions of the joints, embedded, plus which joint each is. A confidence is embedded as it is.

    `[N, M, T, V, C]` -> `[N, M, T, V, channels]`.
    """

    channels: int
    relative_positions: np.ndarray  # [V, V]
    coordinates: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        joints, channels_in = x.shape[-2:]
        init = linear_uniform(channels_in)
        relative = jnp.einsum("uv,nmtvc->nmtuc", self.relative_positions, x[..., : self.coordinates])
        x = jnp.concatenate([relative, x[..., self.coordinates :]], axis=-1)
        x = nn.Dense(self.channels, kernel_init=init, bias_init=init, name="joint")(x)
        return x + self.param("position", nn.initializers.normal(1.0), (joints, self.channels))


class InfoGCN(nn.Module):
    """Info-GCN: nine blocks, and a head that classifies a latent vector, which is random in training.

    Training pulls the mean of each class's latent vectors to a prior of its own, a row of an orthogonal matrix that is
    drawn once and never trained: `z_prior`, float32 `[num_classes, feature_width]`, in `batch_stats`.

    Attributes:
      num_classes: length of the logits.
      relative_positions: float32 `[V, V]`, `mmcl_jax.models.graphs.relative_positions` of the layout.
      coordinates: how many of a joint's channels these positions are; what follows is no position.
      base_channels: channels of blocks 1-3; blocks 4-6 have twice, blocks 7-9 four times as many. A multiple of 4.
      batch_norm_group_size: clips that normalise together, None = the batch (see `layers.BatchNorm`).
      latent_noise: the deviation of the latent vector is `exp(latent_noise * logvar)` in training; 0 means none, the
        mean is classified as in evaluation.
      label_smoothing: share of the target that goes to all classes alike.
      mmd_weights: weights of the norm of the latent vectors' mean, and of the classes' distance from their priors.
      prior_gain: length of the rows of `z_prior` (where there are fewer rows than columns).
      folded: the variables are those that `fold` returns.
      dtype: see `blocks.TenBlocks`.
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
    folded: bool = False
    dtype: jnp.dtype | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.latent_noise < 0:
            raise ValueError(f"latent_noise {self.latent_noise} is negative; 0 switches sampling off")
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"label_smoothing {self.label_smoothing} is not within 0 and 1")
        if len(self.mmd_weights) != 2 or min(self.mmd_weights) < 0:
            raise ValueError(f"mmd_weights {self.mmd_weights} are not two weights, each 0 or more")
        if self.prior_gain <= 0:
            raise ValueError(f"prior_gain {self.prior_gain} is not positive")

    def setup(self):
        width = self.feature_width
        self.embedding = JointEmbedding(self.base_channels, self.relative_positions, self.coordinates)
        self.data_bn = make_norm(self.folded, self.batch_norm_group_size)()
        self.blocks = [self._block(number) for number in range(len(WIDTHS))]
        dense = functools.partial(nn.Dense, bias_init=linear_uniform(width))
        hidden = functools.partial(dense, width, kernel_init=nn.initializers.variance_scaling(2, "fan_avg", "uniform"))
        self.fc, self.fc_mu, self.fc_logvar = hidden(), hidden(), hidden()
        self.decoder = dense(self.num_classes, kernel_init=nn.initializers.normal((2.0 / self.num_classes) ** 0.5))
        self.z_prior = self.variable("batch_stats", "z_prior", self._draw_prior)

    @nn.nowrap
    def _block(self, number: int) -> Block:
        norm = make_norm(self.folded, self.batch_norm_group_size)
        channels = self.base_channels * WIDTHS[number]
        convolutions = functools.partial(GraphConv), functools.partial(RectifiedTemporalConv)
        return Block(channels, STRIDES[number], True, *convolutions, norm)

    @nn.nowrap
    def fold(self, variables: Mapping) -> dict:
        """Variables of this model -> those of `self.clone(folded=True)`, the same function without batch norms."""
        return fold_backbone(self._block, variables)

    def _draw_prior(self) -> jax.Array:
        draw = nn.initializers.orthogonal(self.prior_gain)
        return draw(self.make_rng("params"), (self.num_classes, self.feature_width))

    @property
    def feature_width(self) -> int:
        """Channels of the features, and length of the latent vectors."""
        return WIDTHS[-1] * self.base_channels

    def features(self, x: jax.Array, train: bool) -> jax.Array:
        """Clips `[N, M, T, V, C]` -> features before pooling `[N, M, T / 4, V, 4 * base_channels]`."""
        return self.trunk(self.embed(x, train), train)

    def embed(self, x: jax.Array, train: bool) -> jax.Array:
        """Clips `[N, M, T, V, C]` -> `[base_channels, N, M, T, V]`, normalised for each body and joint."""
        return normalise_joints(self.data_bn, self.embedding(x), train).astype(self.dtype or x.dtype)

    def trunk(self, x: jax.Array, train: bool) -> jax.Array:
        """What `embed` made of some bodies -> their features."""
        for block in self.blocks:
            x = block(x, train)
        return x.transpose(1, 2, 3, 4, 0)

    def head(self, features: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Features `[N, M, T', V, C']` -> logits `[N, num_classes]`, and what the loss needs beside them.

        Auxiliary outputs: `z` `[N, C']`, the latent vectors that were classified, and `z_prior` `[num_classes, C']`.
        With `latent_noise`, training draws from the random stream `dropout`.
        """
        hidden = nn.relu(self.fc(pooled(features)))
        z, logvar = self.fc_mu(hidden), self.fc_logvar(hidden)
        if train and self.latent_noise:
            deviation = jnp.minimum(jnp.exp(self.latent_noise * logvar), _LARGEST_DEVIATION)
            z = z + deviation * jax.random.normal(self.make_rng("dropout"), z.shape, z.dtype)
        return self.decoder(z), {"z": z, "z_prior": self.z_prior.value}

    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Clips `[N, M, T, V, C]` -> logits `[N, num_classes]` and auxiliary outputs."""
        return self.head(self.features(x, train), train)

    @nn.nowrap
    def classification_loss(self, logits: jax.Array, aux: dict[str, jax.Array], labels: jax.Array) -> jax.Array:
        """Cross entropy with label smoothing, and the two terms on the latent vectors."""
        norm_weight, prior_weight = self.mmd_weights
        loss = losses.smoothed_cross_entropy(logits, labels, self.label_smoothing)
        loss += norm_weight * losses.mean_norm(aux["z"])
        return loss + prior_weight * losses.class_prior_distance(aux["z"], aux["z_prior"], labels)
