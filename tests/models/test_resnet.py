"""ResNet-34 against torchvision's, and published weights on their way into a run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mmcl_jax import image_features, run_state, steps
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS
from mmcl_jax.models.resnet import BasicBlock, ResNet34
from mmcl_jax.pytorch import state_dicts
from mmcl_jax.pytorch.names import IMAGE_ENCODER_ENTRIES, resnet34_entries
from mmcl_jax.task import build_training_task
from tests.helpers.golden import filled_state_dict, load, model_input, relative_error
from tests.helpers.runs import tiny_config


def variable_shapes(name: str) -> dict:
    encoder = IMAGE_ENCODERS[name]
    images = jax.ShapeDtypeStruct((2, encoder.image_size, encoder.image_size, 3), jnp.float32)
    return jax.eval_shape(lambda key, x: encoder.module().init(key, x, False), jax.random.key(0), images)


def random_state_dict(name: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(np.float32) * 0.1, variable_shapes(name)
    )
    return state_dicts.to_torch(variables, IMAGE_ENCODER_ENTRIES[name]())


@pytest.fixture(scope="module")
def shapes():
    return variable_shapes("resnet34")


def test_parameter_count(shapes):
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 21_797_672  # torchvision's


def test_group_size_keeps_the_structure(shapes):
    images = jax.ShapeDtypeStruct((4, 64, 96, 3), jnp.float32)  # of any size
    logits, variables = jax.eval_shape(
        lambda key, x: ResNet34(group_size=2).init_with_output(key, x, True), jax.random.key(0), images
    )
    assert logits.shape == (4, 1000) and logits.dtype == jnp.float32
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)


def test_initial_parameters_are_torchvisions():
    block = BasicBlock(256, downsample=True, group_size=None)
    key = jax.random.key(0, impl="rbg")  # compiles fast
    params = jax.jit(lambda key: block.init(key, jnp.zeros((1, 4, 4, 128)), False)["params"])(key)
    kernel = params["conv1"]["kernel"]
    assert float(kernel.std()) == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert float(jnp.abs(kernel).max()) > 3 * float(kernel.std())  # not cut
    assert float(params["downsample"]["kernel"].std()) == pytest.approx((2 / 256) ** 0.5, rel=0.03)


def test_published_logits(shapes):
    reference, expected = load("resnet34")
    state_dict = filled_state_dict(reference)
    variables = state_dicts.to_flax(state_dict, resnet34_entries(), shapes)
    assert list(state_dicts.to_torch(variables, resnet34_entries())) == list(reference["state_dict"])
    images = model_input(reference).transpose(0, 2, 3, 1)

    logits = jax.jit(lambda v, x: ResNet34().apply(v, x, False))(variables, images)
    assert relative_error(logits, expected["eval_logits"]) <= 1e-4

    train = jax.jit(lambda v, x: ResNet34().apply(v, x, True, mutable=["batch_stats"]))
    logits, updates = train(variables, images)
    assert relative_error(logits, expected["train_logits"]) <= 1e-3
    assert jax.tree.structure(updates["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


def save(state_dict: dict[str, np.ndarray], path) -> str:
    if path.suffix == ".npz":
        np.savez(path, **state_dict)
    else:
        torch.save({key: torch.from_numpy(value) for key, value in state_dict.items()}, path)
    return str(path)


@pytest.mark.parametrize(("name", "suffix"), [("resnet34", "npz"), ("inception_v3", "pt")])
def test_published_weights_are_read(name, suffix, tiny_records, tmp_path):
    state_dict = random_state_dict(name)
    weights = save(state_dict, tmp_path / f"weights.{suffix}")
    config = tiny_config(tiny_records, model__image_encoder=name, model__image_encoder_weights=weights)
    variables = image_features.pretrained_variables(config)
    expected = state_dicts.to_flax(state_dict, IMAGE_ENCODER_ENTRIES[name](), variable_shapes(name))
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_a_run_starts_from_the_weights_file(tiny_records, tmp_path, shapes, monkeypatch):
    def zeros(*arguments):  # drawing the numbers that the file replaces would take most of a minute to compile
        state = jax.eval_shape(functools.partial(steps.random_state, *arguments))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)

    monkeypatch.setattr(steps, "draw_state", zeros)
    state_dict = random_state_dict("resnet34")
    weights = save(state_dict, tmp_path / "resnet34.pth")
    config = tiny_config(tiny_records, model__image_encoder="resnet34", model__image_encoder_weights=weights)
    task = build_training_task(config)
    assert task.image_size == 224
    state = run_state.create_state(task)
    started = {kind: getattr(state, kind)["image_encoder"] for kind in ("params", "batch_stats")}
    jax.tree.map(np.testing.assert_array_equal, started, state_dicts.to_flax(state_dict, resnet34_entries(), shapes))
    assert state.params["alignment"]["hidden"]["kernel"].shape[0] == 1000  # FAM reads the encoder's logits


def test_statistics_follow_encoder_and_weights():
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert IMAGE_ENCODERS["resnet34"].statistics("") == IMAGE_ENCODERS["resnet34"].statistics("r.pt") == imagenet
    assert IMAGE_ENCODERS["inception_v3"].statistics("") == imagenet
    assert IMAGE_ENCODERS["inception_v3"].statistics("i.pt") == ((0.5,) * 3, (0.5,) * 3)  # pixels in [-1, 1]


def test_weights_of_another_encoder_are_refused_by_name(tiny_records, tmp_path):
    path = save(random_state_dict("resnet34"), tmp_path / "resnet34.npz")
    config = tiny_config(tiny_records, model__image_encoder="inception_v3", model__image_encoder_weights=path)
    with pytest.raises(ValueError, match=r"resnet34\.npz, read as inception_v3: .* does not fit"):
        image_features.pretrained_variables(config)
    config.model.image_encoder = "small_cnn"
    with pytest.raises(
        ValueError, match="'small_cnn' has no published weights; use efficientnet_lite0, inception_v3, resnet34"
    ):
        image_features.pretrained_variables(config)
