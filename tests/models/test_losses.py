"""The losses: contrastive values of the released code, the paper's equations written out in numpy, groups."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mmcl_jax.models.losses import (
    CONTRASTIVE,
    class_prior_distance,
    contrastive,
    cross_entropy,
    mean_norm,
    smoothed_cross_entropy,
)
from tests.helpers.golden import COMPACT, standard_input

TAU = 0.4


def features(clips: int = 6, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(clips, width)).astype(np.float32) for _ in range(2))


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """e^(sim(a, b) / tau) of eq. 5 and 6."""
    return np.exp(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) / TAU)


def paper_contrastive(skeleton: np.ndarray, image: np.ndarray) -> float:
    """Equations 4-6, with the minus sign that eq. 5 lacks: N clips, one term per clip and direction."""
    clips = range(len(skeleton))

    def one_way(a, b, i):
        positive = similarity(a[i], b[i])
        negatives = sum(similarity(a[i], b[k]) + similarity(b[i], a[k]) for k in clips if k != i)
        return -np.log(positive / (positive + negatives))

    total = sum(one_way(skeleton, image, i) + one_way(image, skeleton, i) for i in clips)
    return total / (2 * len(skeleton))


def released_contrastive(skeleton: np.ndarray, image: np.ndarray) -> float:
    """GRACE's loss: a clip's negatives are the other clips of both modalities, seen from one of them."""
    clips = range(len(skeleton))

    def one_way(a, b, i):
        positive = similarity(a[i], b[i])
        negatives = sum(similarity(a[i], b[k]) + similarity(a[i], a[k]) for k in clips if k != i)
        return -np.log(positive / (positive + negatives))

    return np.mean([(one_way(skeleton, image, i) + one_way(image, skeleton, i)) / 2 for i in clips])


BY_HAND = {"paper": paper_contrastive, "released": released_contrastive}
all_variants = pytest.mark.parametrize("variant", CONTRASTIVE)


def test_released_values():
    for size, expected in json.loads((COMPACT / "contrastive.json").read_text())["value"].items():
        clips, width = map(int, size.split("x"))
        a, b = (standard_input(f"con/{modality}{clips}", (clips, width)) for modality in "ab")
        assert float(contrastive(a, b, temperature=TAU)) == pytest.approx(expected, rel=1e-5)


@all_variants
@pytest.mark.parametrize("clips", [1, 2, 7])
def test_equations(variant, clips):
    a, b = features(clips)
    value = contrastive(a, b, temperature=TAU, variant=variant)
    assert float(value) == pytest.approx(BY_HAND[variant](a, b), rel=1e-5, abs=1e-6)


@all_variants
def test_groups_are_batches_of_their_own(variant):
    a, b = features(6)
    value = contrastive(a, b, temperature=TAU, variant=variant, group_size=2)
    alone = [BY_HAND[variant](a[i : i + 2], b[i : i + 2]) for i in (0, 2, 4)]
    assert float(value) == pytest.approx(np.mean(alone), rel=1e-5)
    whole = contrastive(a, b, temperature=TAU, variant=variant, group_size=6)
    assert float(whole) == pytest.approx(BY_HAND[variant](a, b), rel=1e-5)


@all_variants
def test_symmetric_and_blind_to_scale(variant):
    a, b = features()
    value = contrastive(a, b, temperature=TAU, variant=variant)
    np.testing.assert_allclose(contrastive(b, a, temperature=TAU, variant=variant), value, rtol=1e-6)
    np.testing.assert_allclose(contrastive(3 * a, 0.1 * b, temperature=TAU, variant=variant), value, rtol=1e-5)


@all_variants
def test_matching_features_cost_less_and_gradients_are_finite(variant):
    a, b = features()
    loss = lambda a, b: contrastive(a, b, temperature=TAU, variant=variant)  # noqa: E731
    assert loss(a, a) < loss(a, b)
    for extreme in (b, a, np.ones_like(b)):
        assert all(np.isfinite(gradient).all() for gradient in jax.grad(loss, (0, 1))(a, extreme))
    for gradient, value in zip(jax.grad(loss, (0, 1))(a, b), (a, b), strict=True):
        # The loss depends only on directions.
        np.testing.assert_allclose((gradient * value).sum(axis=1), 0, atol=1e-6)


def test_errors():
    a, b = features()
    with pytest.raises(ValueError, match="group size 4 does not divide a batch of 6"):
        contrastive(a, b, temperature=TAU, group_size=4)
    with pytest.raises(ValueError, match="contrastive variant 'simclr' is not one of released, paper"):
        contrastive(a, b, temperature=TAU, variant="simclr")


def test_cross_entropy_by_hand():
    logits = jnp.array([[0.0, 0.0], [np.log(3.0), 0.0]])
    assert float(cross_entropy(logits, jnp.array([0, 1]))) == pytest.approx((np.log(2) + np.log(4)) / 2, rel=1e-6)


def test_smoothed_cross_entropy_is_torchs():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 5)).astype(np.float32), rng.integers(0, 5, 6)
    for smoothing in (0.0, 0.1, 1.0):
        expected = torch.nn.functional.cross_entropy(
            torch.tensor(logits), torch.tensor(labels), label_smoothing=smoothing
        )
        assert float(smoothed_cross_entropy(logits, labels, smoothing)) == pytest.approx(float(expected), rel=1e-6)


def test_class_prior_distance_sees_the_classes_that_are_there():
    rng = np.random.default_rng(0)
    latent, prior = (rng.normal(size=(rows, 4)).astype(np.float32) for rows in (6, 5))
    labels = np.array([3, 0, 3, 3, 4, 0])
    expected = np.mean([np.square(latent[labels == label].mean(axis=0) - prior[label]) for label in (0, 3, 4)])
    value, gradient = jax.jit(jax.value_and_grad(class_prior_distance))(latent, prior, labels)
    assert float(value) == pytest.approx(expected, rel=1e-6)
    for row, label in enumerate(labels):
        of_class = latent[labels == label]
        slope = 2 * (of_class.mean(axis=0) - prior[label]) / (len(of_class) * 3 * 4)
        np.testing.assert_allclose(gradient[row], slope, rtol=1e-4, atol=1e-7)
    assert float(class_prior_distance(prior[labels], prior, labels)) == pytest.approx(0, abs=1e-12)


def test_mean_norm():
    latent = jnp.array([[3.0, 0.0], [3.0, 8.0]])
    assert float(mean_norm(latent)) == pytest.approx(5)
    np.testing.assert_allclose(jax.grad(mean_norm)(latent), [[0.3, 0.4]] * 2, rtol=1e-6)
    assert (jax.grad(mean_norm)(jnp.zeros((2, 2))) == 0).all()
