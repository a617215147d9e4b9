"""Multi-modality co-learning (MMCL, section 3.3 of the paper): images and text help any backbone in training.

Inference needs only `backbone`, whose variables are the subtree of that name. Equation numbers are those of the paper.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl_jax.models.initializers import linear_uniform
from mmcl_jax.models.layers import pool
from mmcl_jax.models.packed import Packing, packed_features
from mmcl_jax.models.precision import at_least_float32
from mmcl_jax.runtime.errors import ConfigError

REFINEMENT = ("diagonal", "full")
BACKBONE = "backbone"  # the skeleton model's subtree in the variables of MMCL


class FeatureAlignment(nn.Module):
    """Takes image features to the width of the skeleton features, M_align of eq. 3: `[N, D]` -> `[N, width]`."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = nn.relu(_linear(x, self.width, "hidden"))
        return _linear(hidden, self.width, "output")


class FeatureRefinement(nn.Module):
    """Refines classification scores with text features, eq. 7 and 8: scores `[N, K]`, text `[N, D]` -> `[N, K]`.

    phi takes the text to `terms` weights that sum to one. Each is the weight of a learnable matrix that acts on the
    scores.

    Attributes:
      terms: n, the number of matrices.
      hidden: width of phi's hidden layer.
      matrices: 'diagonal' (released code: a vector each) or 'full' (eq. 8). They start at the identity, so that the
        scores are not changed at first.

    Raises:
      ConfigError: `matrices` is neither.
    """

    terms: int = 2
    hidden: int = 64
    matrices: str = "diagonal"

    @nn.compact
    def __call__(self, scores: jax.Array, text: jax.Array) -> jax.Array:
        if self.matrices not in REFINEMENT:
            raise ConfigError(f"refinement {self.matrices!r} is not one of {', '.join(REFINEMENT)}")
        # Token ids near 30,000 do not fit bfloat16: phi computes in float32 or wider.
        hidden = nn.relu(_linear(at_least_float32(text), self.hidden, "phi_hidden"))
        weights = nn.softmax(_linear(hidden, self.terms, "phi_output"))
        classes = scores.shape[-1]
        if self.matrices == "diagonal":
            matrices = self.param("matrices", nn.initializers.ones, (self.terms, classes))
            return jnp.einsum("nt,tk,nk->nk", weights, matrices, scores)
        matrices = self.param("matrices", lambda _key: jnp.tile(jnp.eye(classes), (self.terms, 1, 1)))
        return jnp.einsum("nt,tkl,nl->nk", weights, matrices, scores)


class MMCL(nn.Module):
    """A skeleton backbone with the Feature Alignment Module (FAM) and the Feature Refinement Module (FRM) around it.

    Attributes:
      backbone: a module that keeps the contract in `mmcl_jax.models`.
      image_encoder: CNN Theta of eq. 3, `[N, H, W, 3]` -> `[N, D]`; None if images arrive as its features.
      alignment: a `FeatureAlignment`; None: no FAM.
      refinement: a `FeatureRefinement`; None: no FRM.
      frozen: whether the skeleton features are those of evaluation in training, too, and have no gradient: neither
        the weights nor the batch-norm statistics behind them change.
    """

    backbone: nn.Module
    image_encoder: nn.Module | None = None
    alignment: nn.Module | None = None
    refinement: nn.Module | None = None
    frozen: bool = False

    def __call__(
        self,
        skeleton: jax.Array,
        image: jax.Array | None = None,
        text: jax.Array | None = None,
        *,
        train: bool,
        bodies: jax.Array | None = None,
        packing: Packing | None = None,
    ) -> dict[str, jax.Array]:
        """Runs the forward pass of training.

        Args:
          skeleton: `[N, M, T, V, C]`, transformed clips.
          image: `[N, H, W, 3]` normalized images, or `[N, D]` image features if there is no image encoder.
          text: `[N, D]` text features.
          train: whether batch norms use statistics of the batch; otherwise they use the running ones.
          bodies: with `packing`, how many bodies of each clip are present, int `[N]`.
          packing: absent bodies, which must be zero, are computed once; None: all bodies are computed.

        Returns:
          `logits` `[N, K]`; `aux`, the auxiliary outputs of the backbone; with FAM `skeleton_features` and
          `image_features`, `[N, C']` each; with FRM `refined_logits` `[N, K]`.
        """
        moving = train and not self.frozen
        if packing is None:
            features = self.backbone.features(skeleton, moving)
        else:
            assert bodies is not None, "packing needs the numbers of bodies"
            features = packed_features(self.backbone, skeleton, bodies, moving, packing)
        if self.frozen:
            features = jax.lax.stop_gradient(features)
        logits, aux = self.backbone.head(features, train)
        outputs = {"logits": logits, "aux": aux}
        if self.alignment is not None:
            encoded = image if self.image_encoder is None else self.image_encoder(image, train)
            outputs["skeleton_features"] = pool(features)
            outputs["image_features"] = self.alignment(encoded)
        if self.refinement is not None:
            outputs["refined_logits"] = self.refinement(logits, text)
        return outputs


def _linear(x: jax.Array, features: int, name: str) -> jax.Array:
    """A dense layer whose kernel starts as that of PyTorch's `nn.Linear`; its bias starts at zero."""
    return nn.Dense(features, kernel_init=linear_uniform(x.shape[-1]), name=name)(x)
