"""Multi-modality co-learning (the paper's section 3.3): any backbone, helped in training by images and text.

At inference only `backbone` is needed; its variables are the subtree of that name.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcl_jax.models.layers import pooled

REFINEMENT = ("diagonal", "full")
BACKBONE = "backbone"  # the skeleton model's subtree in the variables of MMCL


class FeatureAlignment(nn.Module):
    """The MLP that takes image features to the width of the skeleton's, M_align of eq. 3. `[N, D]` -> `[N, width]`."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _linear(self.width, "output")(nn.relu(_linear(self.width, "hidden")(x)))


class FeatureRefinement(nn.Module):
    """Refines classification scores with text features (eq. 7 and 8). `[N, K]` scores, `[N, D]` text -> `[N, K]`.

    phi takes the text to `terms` weights that sum to one; each weighs a learnable matrix on the scores.

    Attributes:
      terms: n, how many matrices.
      matrices: 'diagonal' (released code: a vector each) or 'full' (eq. 8). They start at the identity, so that
        refinement starts as no change.
    """

    terms: int = 2
    hidden: int = 64
    matrices: str = "diagonal"

    @nn.compact
    def __call__(self, scores: jax.Array, text: jax.Array) -> jax.Array:
        if self.matrices not in REFINEMENT:
            raise ValueError(f"refinement {self.matrices!r} is not one of {', '.join(REFINEMENT)}")
        # Token ids near 30,000 do not fit bfloat16: phi computes in float32 at least.
        hidden = nn.relu(_linear(self.hidden, "phi_hidden")(text.astype(jnp.promote_types(text.dtype, jnp.float32))))
        weights = nn.softmax(_linear(self.terms, "phi_output")(hidden))
        classes = scores.shape[-1]
        if self.matrices == "diagonal":
            matrices = self.param("matrices", nn.initializers.ones, (self.terms, classes))
            return jnp.einsum("nt,tk,nk->nk", weights, matrices, scores)
        matrices = self.param("matrices", lambda _key: jnp.tile(jnp.eye(classes), (self.terms, 1, 1)))
        return jnp.einsum("nt,tkl,nl->nk", weights, matrices, scores)


class MMCL(nn.Module):
    """A skeleton backbone with the Feature Alignment and Feature Refinement Modules around it.

    Attributes:
      backbone: module of the contract in `mmcl_jax.models`.
      image_encoder: CNN Theta of eq. 3, `[N, H, W, 3]` -> `[N, D]`; None where images arrive as its features.
      alignment: FeatureAlignment, or None: no FAM.
      refinement: FeatureRefinement, or None: no FRM.
    """

    backbone: nn.Module
    image_encoder: nn.Module | None = None
    alignment: nn.Module | None = None
    refinement: nn.Module | None = None

    def __call__(
        self, skeleton: jax.Array, image: jax.Array | None = None, text: jax.Array | None = None, *, train: bool
    ) -> dict[str, jax.Array]:
        """Runs training's forward pass.

        Args:
          skeleton: `[N, M, T, V, C]`, transformed clips.
          image: `[N, H, W, 3]` normalised images, or `[N, D]` image features where there is no image encoder.
          text: `[N, D]` text features.
          train: batch statistics or running ones.

        Returns:
          logits `[N, K]`; `aux` of the backbone's head; with FAM `skeleton_features` and `image_features`
          `[N, C']`; with FRM `refined_logits` `[N, K]`.
        """
        features = self.backbone.features(skeleton, train)
        logits, aux = self.backbone.head(features, train)
        outputs = {"logits": logits, "aux": aux}
        if self.alignment is not None:
            encoded = image if self.image_encoder is None else self.image_encoder(image, train)
            outputs["skeleton_features"] = pooled(features)
            outputs["image_features"] = self.alignment(encoded)
        if self.refinement is not None:
            outputs["refined_logits"] = self.refinement(logits, text)
        return outputs


def _linear(features: int, name: str) -> nn.Dense:
    """A dense layer whose kernel starts as PyTorch's `nn.Linear` does: uniform within 1 / sqrt(inputs)."""
    return nn.Dense(
        features,
        kernel_init=nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        name=name,
    )
