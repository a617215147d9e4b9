"""The recipe's switches in one training step each, on a backbone that compiles at once: every one has its effect."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmcl_jax import steps
from mmcl_jax.models import losses
from mmcl_jax.models.layers import BatchNorm, pool
from mmcl_jax.models.losses import cross_entropy_of_logits
from mmcl_jax.models.mmcl import MMCL
from mmcl_jax.optim import scaled_part
from mmcl_jax.runtime.backend import HASTY
from mmcl_jax.steps import LossOptions, Recipe
from mmcl_jax.task import _makes_features

N, K = 6, 3
PLAIN = LossOptions(contrastive_weight=0, refinement_weight=0)


class Small(nn.Module):
    """A batch norm, a linear layer, the mean, a classifier: the contract of `mmcl_jax.models`."""

    feature_width: int = 5
    classification_loss = staticmethod(cross_entropy_of_logits)

    def setup(self):
        self.data_bn, self.hidden, self.fc = BatchNorm(), nn.Dense(self.feature_width), nn.Dense(K)

    def features(self, x, train):
        return nn.relu(self.hidden(self.data_bn(x, train)))

    def head(self, features, train):
        return self.fc(pool(features)), {}

    def __call__(self, x, train):
        return self.head(self.features(x, train), train)


def recipe(optimizer=None, *, frozen=False, loss=PLAIN, **more) -> Recipe:
    return Recipe(
        model=MMCL(Small(), frozen=frozen),
        transform=lambda clip, frames, bodies, key: clip,
        optimizer=optimizer or optax.sgd(0.1),
        loss=loss,
        **more,
    )


def batch(seed=0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "skeleton": jnp.asarray(rng.normal(size=(N, 1, 4, 5, 3)), jnp.float32),
        "frames": jnp.full(N, 4),
        "bodies": jnp.ones(N, jnp.int32),
        "label": jnp.arange(N) % K,
        "position": jnp.arange(N, dtype=jnp.uint32),
    }


def take(made: Recipe, count=1) -> tuple[steps.TrainState, steps.TrainState]:
    """The states before and after `count` steps."""
    state = steps.initial_state(made, 0, batch())
    step = jax.jit(functools.partial(steps.train_step, recipe=made, key=jax.random.key(1)), compiler_options=HASTY)
    end = state
    for number in range(count):
        end = step(end, batch(number))
    return state, end


@functools.cache
def plain() -> tuple[steps.TrainState, steps.TrainState]:
    """The states before and after a step without any switch."""
    return take(recipe())


def moved(start, end, path) -> float:
    at = lambda state: functools.reduce(lambda tree, key: tree[key], path.split("/"), state.params["backbone"])  # noqa: E731
    return float(np.abs(at(end) - at(start)).max())


def same(a, b) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y), a, b))


def test_a_frozen_backbone_keeps_weights_and_statistics_and_its_classifier_learns():
    made = recipe(
        scaled_part(optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)), 0.0, _makes_features), frozen=True
    )
    start, end = take(made, count=2)
    assert same(start.batch_stats, end.batch_stats)
    assert moved(start, end, "hidden/kernel") == moved(start, end, "data_bn/scale") == 0
    assert moved(start, end, "fc/kernel") > 1e-3
    free, moving = plain()
    assert not same(free.batch_stats, moving.batch_stats)


def test_a_slower_backbone_moves_by_the_scale_and_its_classifier_as_before():
    (start, end), (_, slow) = plain(), take(recipe(scaled_part(optax.sgd(0.1), 0.25, _makes_features)))
    ratio = moved(start, slow, "hidden/kernel") / moved(start, end, "hidden/kernel")
    assert ratio == pytest.approx(0.25, rel=1e-3)
    assert moved(start, slow, "fc/kernel") == pytest.approx(moved(start, end, "fc/kernel"), rel=1e-5)


def test_the_average_follows_weights_and_statistics_and_changes_nothing_else():
    made = recipe(ema_decay=0.9)
    step = functools.partial(jax.jit, compiler_options=HASTY)(
        functools.partial(steps.train_step, recipe=made, key=jax.random.key(1))
    )
    start = steps.initial_state(made, 0, batch())
    first = step(start, batch())
    second = step(first, batch())
    expected = {"params": start.params["backbone"], "batch_stats": start.batch_stats["backbone"]}
    assert same(start.average, expected)
    for number, state in enumerate((first, second)):
        decay = min(0.9, (1 + number) / (10 + number))
        now = {"params": state.params["backbone"], "batch_stats": state.batch_stats["backbone"]}
        expected = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, expected, now)  # noqa: B023
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), state.average, expected)
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), batch())  # two steps in one program
    together = steps.train_steps(start, both, steps=2, recipe=made, key=jax.random.key(1))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), together.average, second.average)
    assert same(plain()[1].params, first.params)
    assert plain()[1].average is None


def test_a_mixed_batch_has_the_mixed_loss():
    clips = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(steps.mix(clips, 0.75), 0.75 * clips + 0.25 * clips[jnp.array([2, 0, 1])])

    made = recipe(loss=dataclasses.replace(PLAIN, mixup=0.4))
    start, end = take(made)
    seen = batch()

    @functools.partial(jax.jit, compiler_options=HASTY)
    def by_hand():
        key = jax.random.fold_in(jax.random.fold_in(jax.random.split(jax.random.key(1))[1], 0), 1)
        share = jax.random.beta(key, 0.4, 0.4)
        variables = {"params": start.params, "batch_stats": start.batch_stats}
        mixed = steps.mix(seen["skeleton"], share)
        outputs, _ = made.model.apply(variables, mixed, None, None, train=True, mutable=["batch_stats"])
        own, other = (
            losses.cross_entropy(outputs["logits"], labels) for labels in (seen["label"], jnp.roll(seen["label"], 1))
        )
        return own, share * own + (1 - share) * other

    own, expected = by_hand()
    assert float(end.totals["loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert abs(own - expected) > 1e-3


def test_class_weights_and_smoothing_reach_both_classification_losses():
    rng = np.random.default_rng(0)
    logits, labels = jnp.asarray(rng.normal(size=(N, K)), jnp.float32), jnp.array([0, 0, 0, 0, 1, 2])
    weights, smoothing = (0.5, 2.0, 2.0), 0.3
    options = LossOptions(label_smoothing=smoothing, class_weights=weights)
    outputs = {"logits": logits, "aux": {}, "refined_logits": 2 * logits}
    terms = steps.loss_terms(outputs, labels, options, cross_entropy_of_logits)

    def by_hand(logits):
        log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
        each = -(1 - smoothing) * log_p[np.arange(N), labels] - smoothing * log_p.mean(axis=1)
        return (np.array(weights)[labels] * each).mean()

    assert float(terms["classification"]) == pytest.approx(by_hand(logits), rel=1e-5)
    assert float(terms["refinement"]) == pytest.approx(by_hand(2 * logits), rel=1e-5)
    plain = steps.loss_terms(outputs, labels, LossOptions(), cross_entropy_of_logits)
    assert float(plain["classification"]) == float(losses.cross_entropy(logits, labels))
    one_sided = losses.cross_entropy(logits, labels, weights=jnp.ones(N))
    assert float(one_sided) == pytest.approx(float(plain["classification"]), rel=1e-6)
