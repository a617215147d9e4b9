"""What a config means: its text set, its images, its part of the training clips, its types."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.batches import fields, image_rows
from mmcl_jax.config import Config
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.data.records import RecordsError
from mmcl_jax.models import BACKBONES, graphs, inception, resnet
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS, ImageEncoder
from mmcl_jax.runtime.backend import HASTY
from mmcl_jax.task import build_training_task, class_weights, stratified_part
from tests.helpers.runs import MeanColour, tiny_config
from tests.helpers.shallow import make_shallow

TEXT_SET = "stand_in/holding/token_ids"


@pytest.mark.parametrize("text", ["stand_in/holding", "stand_in/holding/", TEXT_SET, "stand_in"])
def test_a_text_set_is_found_by_its_beginning(tiny_records, text):
    assert build_training_task(tiny_config(tiny_records, data__text=text)).text_set == TEXT_SET


@pytest.mark.parametrize("text", ["", "stand", "blip/holding", TEXT_SET + "/more"])
def test_a_text_set_that_is_not_there_is_an_error_that_lists_those_that_are(tiny_records, text):
    with pytest.raises(RecordsError, match="names 0 of the text sets") as caught:
        build_training_task(tiny_config(tiny_records, data__text=text))
    assert TEXT_SET in str(caught.value)


def test_records_without_text_sets_are_an_error_that_says_how_to_make_one(tiny_records, tmp_path):
    folder = tmp_path / "records"
    shutil.copytree(tiny_records, folder, ignore=shutil.ignore_patterns("text"))
    make = rf"python -m data_prep\.text_features --records={folder} adds some, or switch FRM off"
    with pytest.raises(RecordsError, match=rf"has no text features, which data\.text .* names; {make}"):
        build_training_task(tiny_config(folder))


def test_two_text_sets_that_fit_are_an_error(tiny_records, tmp_path):
    folder = tmp_path / "records"
    shutil.copytree(tiny_records, folder)
    shutil.copytree(folder / "text" / TEXT_SET, folder / "text" / "stand_in/holding/other")
    with pytest.raises(RecordsError, match="names 2 of the text sets"):
        build_training_task(tiny_config(folder))


def test_text_statistics_are_those_of_the_training_clips(tiny_records):
    task = build_training_task(tiny_config(tiny_records, data__text_scaling="standardise"))
    features = np.stack([task.skeleton.records.text(int(row), TEXT_SET) for row in task.rows])
    mean, deviation = task.recipe.text_statistics
    standardised = (features - mean) / deviation
    assert features[:, 0].std() == 0  # the same first token for every clip
    np.testing.assert_allclose(standardised.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(standardised.std(axis=0), [0, 1, 0], rtol=1e-5)
    assert build_training_task(tiny_config(tiny_records, data__text_scaling="none")).recipe.text_statistics is None


def test_what_is_missing_is_named_with_the_switch_that_does_without(tiny_records, tmp_path):
    folder = tmp_path / "records"
    shutil.copytree(tiny_records, folder)
    shutil.rmtree(folder / "images")
    with pytest.raises(RecordsError, match="24 of 24 training clips have no images") as caught:
        build_training_task(tiny_config(folder))
    assert "--config.loss.contrastive_weight=0" in str(caught.value)
    shutil.rmtree(folder / "text")
    with pytest.raises(RecordsError, match=r"--config\.loss\.refinement_weight=0"):
        build_training_task(tiny_config(folder, loss__contrastive_weight=0.0))
    task = build_training_task(tiny_config(folder, loss__contrastive_weight=0.0, loss__refinement_weight=0.0))
    assert (task.text_set, task.image_size, task.recipe.model.alignment, task.recipe.model.refinement) == (
        None,
        None,
        None,
        None,
    )


def test_a_frozen_encoder_is_no_part_of_the_model(tiny_records):
    task = build_training_task(tiny_config(tiny_records, model__image_encoder_frozen=True))
    assert task.recipe.model.image_encoder is None
    assert task.recipe.model.alignment is not None
    assert task.image_size == 96


def test_shuffled_images_are_those_of_other_training_clips(tiny_records):
    own = build_training_task(tiny_config(tiny_records))
    reads = {}
    for seed in (0, 1):
        task = build_training_task(tiny_config(tiny_records, data__shuffled_images=True, seed=seed))
        reads[seed] = image_rows(task)
        assert sorted(reads[seed].values()) == sorted(reads[seed]) == task.rows.tolist()
        frozen = fields(task, {row: np.float32([row]) for row in task.rows.tolist()})
        assert frozen.image is not None
        assert {row: int(frozen.image(row)[0]) for row in reads[seed]} == reads[seed]
        row = next(row for row, other in reads[seed].items() if row != other)
        shuffled, straight = fields(task).image, fields(own).image
        assert shuffled is not None and straight is not None
        np.testing.assert_array_equal(shuffled(row), straight(reads[seed][row]))
        assert not np.array_equal(shuffled(row), straight(row))
    assert reads[0] != reads[1] and set(image_rows(own).items()) == {(row, row) for row in own.rows.tolist()}


@pytest.mark.parametrize("graph", graphs.GRAPHS)
def test_ctrgcn_starts_from_the_graph_that_the_config_names(tiny_records, graph):
    config = tiny_config(tiny_records, model__graph=graph, model__center_of_mass=21)
    adjacency = build_training_task(config).skeleton.backbone.adjacency
    np.testing.assert_array_equal(adjacency, graphs.GRAPHS[graph](LAYOUTS["ntu"], 21))
    assert not np.array_equal(adjacency, graphs.GRAPHS["natural"](LAYOUTS["ntu"], 21)) or graph == "natural"


def test_a_fraction_has_clips_of_every_class_and_those_of_smaller_fractions():
    labels = np.repeat([0, 1, 2], [40, 20, 1])
    parts = {fraction: stratified_part(labels, fraction, seed=0) for fraction in (0.01, 0.05, 0.5, 1.0)}
    counts = {fraction: np.bincount(labels[places]).tolist() for fraction, places in parts.items()}
    assert counts == {0.01: [1, 1, 1], 0.05: [2, 1, 1], 0.5: [20, 10, 1], 1.0: [40, 20, 1]}
    assert set(parts[0.05]) < set(parts[0.5]) < set(parts[1.0])
    assert (np.diff(parts[0.5]) > 0).all()
    np.testing.assert_array_equal(stratified_part(labels, 0.5, seed=0), parts[0.5])
    assert set(stratified_part(labels, 0.5, seed=1)) != set(parts[0.5])


def test_a_fraction_of_the_training_clips_and_balanced_weights(tiny_records):
    whole = build_training_task(tiny_config(tiny_records))
    part = build_training_task(tiny_config(tiny_records, data__train_fraction=0.5))
    labels = part.skeleton.records.index["label"]
    assert len(part.rows) == len(whole.rows) // 2 and set(part.rows) < set(whole.rows)
    assert set(labels[part.rows]) == set(range(12))

    rows = np.flatnonzero(labels < 2)[:5]  # two classes of three and two clips
    config = Config.of(tiny_config(tiny_records, loss__class_weights="balanced"))
    weights = np.array(class_weights(config, part.skeleton.records, rows, 12))
    assert weights[labels[rows]].mean() == pytest.approx(1)
    counts = np.bincount(labels[rows], minlength=12)
    np.testing.assert_allclose((weights * counts)[:2], 2.5)
    assert not weights[2:].any()
    assert whole.recipe.loss.class_weights is None


@pytest.fixture
def shallow(monkeypatch):
    """Models of every kind of layer, but of few layers, which compile fast."""
    make_shallow(monkeypatch.setitem, stages=((1, 1), (2, 2)))
    monkeypatch.setattr(resnet, "BLOCKS", (1, 1, 1, 1))
    wanted = ("Mixed_5b", "Mixed_6a")
    monkeypatch.setattr(inception, "BLOCKS", {name: inception.BLOCKS[name] for name in wanted})


def in_both_types(records, variables_of, compute, **changes) -> list[dict]:
    """What `compute(model, variables)` returns for the same variables in float32 and in bfloat16."""
    configs = [tiny_config(records, compute_dtype=dtype, **changes) for dtype in ("float32", "bfloat16")]
    models = [build_training_task(config).recipe.model for config in configs]
    variables = jax.jit(functools.partial(variables_of, models[0]), compiler_options=HASTY)(jax.random.key(0))
    return [jax.jit(functools.partial(compute, model), compiler_options=HASTY)(variables) for model in models]


def relative_errors(actual: dict, expected: dict) -> dict[str, float]:
    """Of each entry, a tree of float32 arrays: norm of the difference over the norm."""
    assert {leaf.dtype.name for leaf in jax.tree.leaves((actual, expected))} == {"float32"}
    norm = lambda tree: sum(float(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(tree)) ** 0.5  # noqa: E731
    difference = jax.tree.map(jnp.subtract, actual, expected)
    return {name: norm(difference[name]) / norm(expected[name]) for name in expected}


@pytest.mark.parametrize(
    "backbone",
    [pytest.param(name, marks=() if name in ("ctrgcn", "infogcn") else pytest.mark.long) for name in BACKBONES],
)
def test_bfloat16_is_close_to_float32_and_parameters_keep_float32(tiny_records, shallow, backbone):
    rng = np.random.default_rng(0)
    text = np.array([[30_522, i, 102] for i in range(4)])  # token ids that bfloat16 cannot hold
    arrays = rng.normal(size=(4, 2, 16, 25, 3)), rng.normal(size=(4, 8)), text
    inputs = [array.astype(np.float32) for array in arrays]
    types = []

    def compute(model, variables):
        def objective(params):
            outputs, updates = model.apply(
                {**variables, "params": params},
                *inputs,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(1)},
            )
            del outputs["aux"]
            return sum(jnp.sin(output).sum() for output in outputs.values()), outputs | updates

        skeleton = {name: tree["backbone"] for name, tree in variables.items()}
        features = model.backbone.apply(skeleton, inputs[0], train=True, method="features", mutable=["batch_stats"])[0]
        types.append(features.dtype.name)
        gradients, outputs = jax.grad(objective, has_aux=True)(variables["params"])
        return {**outputs, "gradients": gradients}

    changes = {"model__backbone": backbone, "model__image_encoder_frozen": True}
    init = lambda model, key: model.init(key, *inputs, train=False)  # noqa: E731
    expected, actual = in_both_types(tiny_records, init, compute, **changes)
    assert types == ["float32", "bfloat16"]
    errors = relative_errors(actual, expected)
    assert 0 < errors.pop("gradients") < 0.06
    assert 0 < max(errors.values()) < 0.01


@pytest.mark.parametrize("encoder", sorted(set(IMAGE_ENCODERS) - {"efficientnet_lite0"}))  # a block has its own test
def test_image_encoders_compute_in_bfloat16(tiny_records, shallow, encoder):
    images = np.random.default_rng(0).normal(size=(4, 75, 75, 3)).astype(np.float32)

    def compute(model, variables):
        features, updates = model.image_encoder.apply(variables, images, train=True, mutable=["batch_stats"])
        return {"features": features, **updates}

    init = lambda model, key: model.image_encoder.init(key, images, train=False)  # noqa: E731
    expected, actual = in_both_types(tiny_records, init, compute, model__image_encoder=encoder)
    errors = relative_errors(actual, expected)
    assert 1e-4 < errors["features"] < 0.1
    assert 1e-6 < errors["batch_stats"] < 0.02


def test_an_encoder_that_cannot_compute_in_bfloat16_is_named(tiny_records, monkeypatch):
    monkeypatch.setitem(IMAGE_ENCODERS, "mean_colour", ImageEncoder(MeanColour, image_size=8))
    config = tiny_config(tiny_records, model__image_encoder="mean_colour", compute_dtype="bfloat16")
    with pytest.raises(ValueError, match="compute_dtype 'bfloat16': MeanColour has no field `dtype`"):
        build_training_task(config)
