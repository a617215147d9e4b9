"""MMCL against the released PyTorch model, and its modules by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.models import losses
from mmcl_jax.models.ctrgcn import CTRGCN
from mmcl_jax.models.graphs import spatial_adjacency
from mmcl_jax.models.mmcl import MMCL, FeatureAlignment, FeatureRefinement
from mmcl_jax.pytorch.names import mmcl_entries
from mmcl_jax.pytorch.state_dicts import to_flax, to_torch
from tests.helpers.golden import (
    filled_state_dict,
    gradient_norm_mismatches,
    load,
    relative_error,
    standard_input,
)


def released_model() -> MMCL:
    backbone = CTRGCN(120, spatial_adjacency(LAYOUTS["ntu"]))
    return MMCL(backbone, None, FeatureAlignment(256), FeatureRefinement())


def initial_shapes(module: nn.Module, *inputs) -> dict:
    return jax.eval_shape(lambda key: module.init(key, *inputs, train=False), jax.random.key(0))


def test_released_training():
    reference, expected = load("mmcl_ntu120")
    inputs = {name: standard_input(name, shape, reference["seed"]) for name, shape in reference["inputs"].items()}
    clips = inputs["mmcl/skeleton"].transpose(0, 4, 2, 3, 1)
    text, image = inputs["mmcl/text"][:, 0], inputs["mmcl/image_logits"]
    model = released_model()
    variables = to_flax(filled_state_dict(reference), mmcl_entries(), initial_shapes(model, clips, image, text))

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, batch_stats, clips, image, text):
        outputs, _ = model.apply(
            {"params": params, "batch_stats": batch_stats}, clips, image, text, train=True, mutable=["batch_stats"]
        )
        contrast = losses.contrastive(outputs["skeleton_features"], outputs["image_features"], temperature=0.4)
        classification = losses.cross_entropy(outputs["logits"], expected["labels"])
        refinement = losses.cross_entropy(outputs["refined_logits"], expected["labels"])
        return classification + 0.1 * contrast + 0.2 * refinement, (outputs, contrast)

    run = functools.partial(jax.jit(loss), variables["params"], variables["batch_stats"])
    (total, (outputs, contrast)), gradients = run(clips, image, text)

    def by_name(gradients):
        return to_torch({"params": gradients}, mmcl_entries())

    assert relative_error(outputs["logits"], expected["train_logits"]) <= 1e-4
    assert relative_error(outputs["refined_logits"], expected["refined"]) <= 1e-4
    assert float(contrast) == pytest.approx(float(expected["contrastive"]), rel=1e-4)
    assert float(total) == pytest.approx(float(expected["total_loss"]), rel=1e-4)
    again = lambda moved: by_name(run(*moved)[1])  # noqa: E731
    assert gradient_norm_mismatches(by_name(gradients), reference, again, (clips, image, text)) == []


def test_skeleton_variables_are_a_subtree():
    clips, image, text = jnp.ones((1, 2, 8, 25, 3)), jnp.ones((1, 1000)), jnp.ones((1, 3))
    model = released_model()
    whole = initial_shapes(model, clips, image, text)
    alone = initial_shapes(model.backbone, clips)
    assert {kind: tree["backbone"] for kind, tree in whole.items()} == alone
    assert set(whole["params"]) == {"backbone", "alignment", "refinement"}
    assert set(whole["batch_stats"]) == {"backbone"}


class SmallBackbone(nn.Module):
    """The contract of `mmcl_jax.models` and nothing else: MMCL knows no backbone by name."""

    def setup(self):
        self.hidden, self.fc = nn.Dense(5), nn.Dense(4)
        self.norm = nn.BatchNorm(momentum=0.9)

    def features(self, x, train):
        return self.norm(self.hidden(x), use_running_average=not train)

    def head(self, features, train):
        return self.fc(nn.relu(features).mean(axis=(1, 2, 3))), {"seen": features.mean()}

    def __call__(self, x, train):
        return self.head(self.features(x, train), train)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return {"skeleton": draw(6, 2, 3, 7, 3), "image": draw(6, 9), "text": draw(6, 3)}


@pytest.mark.parametrize("train", [False, True])
def test_the_skeleton_subtree_alone_gives_the_same_logits(batch, train):
    model = MMCL(SmallBackbone(), None, FeatureAlignment(5), FeatureRefinement())
    variables = jax.jit(functools.partial(model.init, train=True))(jax.random.key(0), **batch)
    outputs, updates = model.apply(variables, **batch, train=train, mutable=["batch_stats"])
    skeleton = {kind: tree["backbone"] for kind, tree in variables.items()}
    (logits, aux), skeleton_updates = SmallBackbone().apply(
        skeleton, batch["skeleton"], train=train, mutable=["batch_stats"]
    )
    np.testing.assert_array_equal(outputs["logits"], logits)
    assert outputs["aux"] == aux
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"]["backbone"], skeleton_updates["batch_stats"])
    assert outputs["skeleton_features"].shape == outputs["image_features"].shape == (6, 5)


@pytest.mark.parametrize("with_image", [False, True])
@pytest.mark.parametrize("with_text", [False, True])
def test_modules_are_optional(batch, with_image, with_text):
    model = MMCL(
        SmallBackbone(),
        alignment=FeatureAlignment(5) if with_image else None,
        refinement=FeatureRefinement() if with_text else None,
    )
    inputs = {
        "skeleton": batch["skeleton"],
        "image": batch["image"] if with_image else None,
        "text": batch["text"] if with_text else None,
    }
    outputs, variables = model.init_with_output(jax.random.key(0), **inputs, train=True)
    expected = {"logits", "aux"}
    expected |= {"skeleton_features", "image_features"} if with_image else set()
    expected |= {"refined_logits"} if with_text else set()
    assert set(outputs) == expected
    modules = {"backbone"} | ({"alignment"} if with_image else set()) | ({"refinement"} if with_text else set())
    assert set(variables["params"]) == modules


class Flatten(nn.Module):
    """A stand-in for the CNN: `[N, H, W, 3]` -> `[N, H W 3]`, nothing in training mode."""

    @nn.compact
    def __call__(self, image, train):
        return nn.Dense(9, name="fc")(image.reshape(len(image), -1)) * (not train)


def test_an_image_encoder_feeds_the_alignment(batch):
    images = np.random.default_rng(1).normal(size=(6, 4, 4, 3)).astype(np.float32)
    model = MMCL(SmallBackbone(), Flatten(), FeatureAlignment(5))
    variables = model.init(jax.random.key(0), batch["skeleton"], images, train=False)
    assert set(variables["params"]) == {"backbone", "image_encoder", "alignment"}
    encoded = Flatten().apply({"params": variables["params"]["image_encoder"]}, images, False)
    aligned = FeatureAlignment(5).apply({"params": variables["params"]["alignment"]}, encoded)
    outputs = model.apply(variables, batch["skeleton"], images, train=False)
    np.testing.assert_allclose(outputs["image_features"], aligned, rtol=1e-5, atol=1e-6)
    in_training = model.apply(variables, batch["skeleton"], images, train=True, mutable=["batch_stats"])[0]
    assert not np.allclose(in_training["image_features"], aligned)


def refine(matrices: str, params, scores, text):
    return FeatureRefinement(terms=2, matrices=matrices).apply({"params": params}, scores, text)


def test_refinement_by_hand():
    rng = np.random.default_rng(0)
    scores, text = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    params = {
        matrices: FeatureRefinement(terms=2, matrices=matrices).init(jax.random.key(0), scores, text)["params"]
        for matrices in ("diagonal", "full")
    }
    # Refinement starts at the identity: no change for any text.
    for matrices in ("diagonal", "full"):
        np.testing.assert_allclose(refine(matrices, params[matrices], scores, text), scores, rtol=1e-6)
    full = rng.normal(size=(2, 4, 4)).astype(np.float32)
    phi = params["full"]
    hidden = np.maximum(text @ phi["phi_hidden"]["kernel"] + phi["phi_hidden"]["bias"], 0)
    weights = np.exp(hidden @ phi["phi_output"]["kernel"] + phi["phi_output"]["bias"])
    weights /= weights.sum(axis=1, keepdims=True)
    expected = [
        sum(w * (m @ s) for w, m in zip(weight, full, strict=True)) for weight, s in zip(weights, scores, strict=True)
    ]
    np.testing.assert_allclose(refine("full", {**phi, "matrices": full}, scores, text), expected, rtol=1e-4, atol=1e-5)
    # Vectors are diagonal matrices.
    vectors = rng.normal(size=(2, 4)).astype(np.float32)
    diagonal = np.stack([np.diag(vector) for vector in vectors])
    np.testing.assert_allclose(
        refine("diagonal", {**phi, "matrices": vectors}, scores, text),
        refine("full", {**phi, "matrices": diagonal}, scores, text),
        rtol=1e-5,
        atol=1e-6,
    )


def test_token_ids_keep_their_digits():
    """Ids near 30,000 that differ by one differ in bfloat16 not at all; phi sees float32."""
    model = FeatureRefinement()
    scores, ids = jnp.ones((2, 4), jnp.bfloat16), jnp.array([[30521, 3, 102], [30522, 3, 102]])
    params = model.init(jax.random.key(0), scores, ids)["params"]
    assert params["phi_hidden"]["kernel"].dtype == jnp.float32
    params["matrices"] = params["matrices"].at[1].set(-1.0)
    params["phi_hidden"]["kernel"] = jnp.zeros_like(params["phi_hidden"]["kernel"]).at[0, 0].set(1.0)
    params["phi_hidden"]["bias"] = params["phi_hidden"]["bias"].at[:].set(0.0).at[0].set(-30521.0)
    params["phi_output"]["kernel"] = jnp.zeros_like(params["phi_output"]["kernel"]).at[0, 0].set(1.0)
    params["phi_output"]["bias"] = jnp.zeros(2)
    refined = model.apply({"params": params}, scores.astype(jnp.float32), ids)
    weight = np.e / (np.e + 1)
    np.testing.assert_allclose(refined[:, 0], [0, 2 * weight - 1], atol=1e-6)


def test_unknown_refinement():
    with pytest.raises(ValueError, match="refinement 'dense' is not one of diagonal, full"):
        FeatureRefinement(matrices="dense").init(jax.random.key(0), jnp.ones((1, 4)), jnp.ones((1, 3)))
