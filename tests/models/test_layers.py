"""Shared blocks: batch norm against PyTorch's rules written out in numpy, convolutions against `jax.lax`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.models.fast.frames import max_pool_frames
from mmcl_jax.models.groups import group_count
from mmcl_jax.models.layers import BatchNorm, Conv1x1, TemporalConv

CLIPS, FRAMES, CHANNELS = 6, 5, 4


@pytest.fixture
def x() -> np.ndarray:
    """[N, T, C], every channel with its own mean and spread."""
    rng = np.random.default_rng(0)
    spread, mean = np.array([1, 5, 0.1, 2]), np.array([0, 3, -1, 20])
    return (rng.normal(size=(CLIPS, FRAMES, CHANNELS)) * spread + mean).astype(np.float32)


def variables() -> dict:
    rng = np.random.default_rng(1)
    values = lambda: rng.uniform(0.5, 1.5, CHANNELS).astype(np.float32)  # noqa: E731
    return {"params": {"scale": values(), "bias": values()}, "batch_stats": {"mean": values(), "var": values()}}


def run(x, train: bool, channel_major: bool, **options):
    """Returns the output for [N, T, C] in the same order, whichever layout is computed in, and the new statistics."""
    layer = BatchNorm(channel_major=channel_major, **options)
    y, updates = layer.apply(variables(), x.transpose(2, 0, 1) if channel_major else x, train, mutable=["batch_stats"])
    return (y.transpose(1, 2, 0) if channel_major else y), updates["batch_stats"]


def expected_output(x, mean, var, epsilon: float = 1e-5):
    params = variables()["params"]
    return (x - mean) / np.sqrt(var + epsilon) * params["scale"] + params["bias"]


both_layouts = pytest.mark.parametrize("channel_major", [False, True])


@both_layouts
def test_batch_norm_in_training(x, channel_major):
    y, statistics = run(x, True, channel_major)
    wide = x.astype(np.float64)
    mean, var = wide.mean((0, 1)), wide.var((0, 1))
    np.testing.assert_allclose(y, expected_output(wide, mean, var), rtol=1e-5, atol=1e-5)
    old, count = variables()["batch_stats"], CLIPS * FRAMES
    np.testing.assert_allclose(statistics["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.9 * old["var"] + 0.1 * var * count / (count - 1), rtol=1e-5)


@both_layouts
def test_batch_norm_in_evaluation(x, channel_major):
    # A group size says nothing about evaluation: a batch that it does not divide is fine.
    y, statistics = run(x, False, channel_major, group_size=4)
    old = variables()["batch_stats"]
    np.testing.assert_allclose(y, expected_output(x, old["mean"], old["var"]), rtol=1e-5, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, statistics, old)


@both_layouts
def test_batch_norm_groups(x, channel_major):
    y, statistics = run(x, True, channel_major, group_size=2)
    alone = [run(x[i : i + 2], True, channel_major) for i in range(0, CLIPS, 2)]
    np.testing.assert_allclose(y, np.concatenate([output for output, _ in alone]), rtol=1e-6, atol=1e-6)
    # As DataParallel leaves it: the running statistics know only the first group.
    for name, value in alone[0][1].items():
        np.testing.assert_allclose(statistics[name], value, rtol=1e-6)
        assert np.abs(statistics[name] - alone[1][1][name]).max() > 1e-3


@both_layouts
def test_batch_norm_gradients(x, channel_major):
    weights = np.random.default_rng(2).normal(size=x.shape).astype(np.float32)

    def loss(params, x):
        x = x.transpose(2, 0, 1) if channel_major else x
        layer = BatchNorm(group_size=3, channel_major=channel_major)
        y, _ = layer.apply({**variables(), "params": params}, x, True, mutable=["batch_stats"])
        return ((y.transpose(1, 2, 0) if channel_major else y) * weights).sum()

    def plain_loss(params, x):
        x = x.reshape(2, -1, CHANNELS)
        mean, var = x.mean(1, keepdims=True), x.var(1, keepdims=True)
        y = (x - mean) / jnp.sqrt(var + 1e-5) * params["scale"] + params["bias"]
        return (y * weights.reshape(2, -1, CHANNELS)).sum()

    ours, plain = (jax.grad(function, (0, 1))(variables()["params"], x) for function in (loss, plain_loss))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), ours, plain)


def test_batch_norm_starts_as_pytorch_does(x):
    initial = BatchNorm().init(jax.random.key(0), x, True)
    assert {name: set(np.unique(leaf)) for name, leaf in initial["params"].items()} == {"scale": {1.0}, "bias": {0.0}}
    assert {name: set(np.unique(leaf)) for name, leaf in initial["batch_stats"].items()} == {
        "mean": {0.0},
        "var": {1.0},
    }


@both_layouts
def test_batch_norm_keeps_the_type_and_counts_in_float32(x, channel_major):
    y, statistics = run(jnp.asarray(x, jnp.bfloat16), True, channel_major)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in statistics.values()} == {np.dtype("float32")}
    exact, _ = run(x, True, channel_major)
    np.testing.assert_allclose(y.astype(np.float32), exact, atol=0.3)


def test_batch_norm_of_a_far_off_centre_channel(x):
    y, _ = run(x / x.std((0, 1)) + 1e3, True, True)
    scaled = (x / x.std((0, 1)) + 1e3).astype(np.float64)
    np.testing.assert_allclose(y, expected_output(scaled, scaled.mean((0, 1)), scaled.var((0, 1))), atol=2e-3)


def test_group_count():
    assert [group_count(200, size) for size in (None, 200, 100)] == [1, 1, 2]
    with pytest.raises(ValueError, match="group size 100 does not divide a batch of 150"):
        group_count(150, 100)


def test_a_group_size_that_does_not_divide_is_an_error(x):
    with pytest.raises(ValueError, match="group size 4 does not divide a batch of 6"):
        run(x, True, True, group_size=4)


@pytest.mark.parametrize("frames", [1, 4, 7, 8])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), [(5, 1, 1), (5, 1, 2), (5, 2, 1), (5, 2, 2), (3, 2, 1)])
def test_temporal_conv(frames, kernel_size, stride, dilation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, 1, frames, 4)).astype(np.float32)  # [C, N, M, T, V]
    kernel = rng.normal(size=(kernel_size, 3, 6)).astype(np.float32)
    bias = rng.normal(size=6).astype(np.float32)
    layer = TemporalConv(6, kernel_size, stride, dilation)
    y = layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    reach = dilation * (kernel_size - 1) // 2
    expected = jax.lax.conv_general_dilated(
        x[:, :, 0].transpose(1, 2, 3, 0),
        kernel[:, np.newaxis],
        window_strides=(stride, 1),
        padding=((reach, reach), (0, 0)),
        rhs_dilation=(dilation, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    assert y.shape == (6, 2, 1, -(-frames // stride), 4)
    np.testing.assert_allclose(y[:, :, 0], (expected + bias).transpose(3, 0, 1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 5, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pool_frames(frames, stride):
    # All negative, so that a padding of zeros would be seen.
    x = -np.random.default_rng(0).uniform(1, 2, (2, 3, 1, frames, 4)).astype(np.float32)
    expected = [x[..., max(t - 1, 0) : t + 2, :].max(axis=-2) for t in range(0, frames, stride)]
    np.testing.assert_array_equal(max_pool_frames(x, stride), np.stack(expected, axis=-2))


def test_conv1x1_and_its_start():
    x = np.random.default_rng(0).normal(size=(200, 2, 3)).astype(np.float32)
    for fan_out, deviation in ((None, (2 / 100) ** 0.5), (25, (2 / 25) ** 0.5)):
        y, initial = Conv1x1(100, fan_out=fan_out).init_with_output(jax.random.key(0), x)
        kernel = initial["params"]["kernel"]
        np.testing.assert_allclose(kernel.std(), deviation, rtol=0.03)
        np.testing.assert_allclose(y, np.einsum("io,inm->onm", kernel, x), rtol=1e-4, atol=1e-4)
