"""Weights of one model as the start of another: what is taken, mapped and left, on trees of arrays."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest

from mmcl_jax.config import ModelConfig
from mmcl_jax.data.layouts import LAYOUTS, Layout, joint_mapping
from mmcl_jax.initial_weights import InitialWeightsError, Source, fit
from mmcl_jax.models import BACKBONES
from mmcl_jax.runtime.backend import HASTY

CLASSES = ("wave", "clap", "sit down")


def build(backbone: str, layout: Layout, classes: int = 3):
    model = BACKBONES[backbone](classes, layout, 3, ModelConfig(base_channels=4))
    return model.clone(stages=((1, 1), (2, 2)))


def variables_of(model, layout: Layout, bodies: int = 1, seed: int = 0) -> dict:
    """Variables of MMCL with random values, positive where they are variances."""
    rng = np.random.default_rng(seed)
    clip = jax.ShapeDtypeStruct((1, bodies, 8, layout.num_joints, 3), np.float32)
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), clip)
    drawn = jax.tree.map(lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32), shapes)
    return {kind: {"backbone": dict(tree)} for kind, tree in drawn.items()}


def source_of(backbone: str, layout: Layout, bodies: int = 1, classes=CLASSES, **more) -> Source:
    model = build(backbone, layout, len(classes))
    variables = variables_of(model, layout, bodies, seed=1)
    adjacency = getattr(model, "adjacency", np.eye(layout.num_joints, dtype=np.float32))
    fields = {"layout": layout, "class_names": classes, "bodies": bodies, "adjacency": adjacency, **more}
    return Source("W", variables, backbone, 4, step=7, **fields)


def take(source: Source, layout: Layout, bodies: int = 1, classes=CLASSES, **more):
    model = build(source.backbone, layout, len(classes))
    initial = variables_of(model, layout, bodies)
    adjacency = getattr(model, "adjacency", np.eye(layout.num_joints, dtype=np.float32))
    return fit(source, initial, layout=layout, class_names=classes, bodies=bodies, adjacency=adjacency, **more)


def same(a, b) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_same_joints_and_classes_take_everything(backbone):
    source = source_of(backbone, LAYOUTS["nw_ucla"])
    variables, report = take(source, LAYOUTS["nw_ucla"])
    assert same(variables, source.variables)
    assert not (report.mapped or report.new or report.unused or report.notes)
    count = len(jax.tree.leaves(variables))
    assert report.lines() == [
        f"initial weights from W, step 7: of {count} arrays, {count} are taken as they are, 0 mapped, 0 new"
    ]


@pytest.mark.parametrize("backbone", ["ctrgcn", "infogcn"])
def test_joints_in_another_order_give_the_same_logits(backbone):
    theirs, ours = LAYOUTS["utd_mhad"], LAYOUTS["nw_ucla"]
    source = source_of(backbone, theirs)
    variables, report = take(source, ours)
    assert not report.new
    assert {"params/backbone/data_bn/scale", "batch_stats/backbone/data_bn/var"} < report.mapped.keys()
    clip = np.random.default_rng(2).normal(size=(1, 1, 8, 20, 3)).astype(np.float32)
    order = [theirs.joints.index(name) for name in ours.joints]
    logits = []
    for layout, tree, seen in ((theirs, source.variables, clip), (ours, variables, clip[:, :, :, order])):
        apply = jax.jit(functools.partial(build(backbone, layout).apply, train=False), compiler_options=HASTY)
        logits.append(apply({kind: part["backbone"] for kind, part in tree.items()}, seen)[0])
    np.testing.assert_allclose(*logits, rtol=1e-4)
    assert np.std(logits[0]) > 0


def test_other_joints_are_averages_and_an_untrained_topology_stays_the_new_layouts():
    theirs, ours = LAYOUTS["ntu"], LAYOUTS["nw_ucla"]
    source = source_of("ctrgcn", theirs)
    topology = source.variables["params"]["backbone"]["blocks_0"]["gcn"]["topology"]
    topology["PA"] = source.adjacency.copy()
    variables, report = take(source, ours)
    found, given = (tree["params"]["backbone"] for tree in (variables, source.variables))
    np.testing.assert_allclose(found["blocks_0"]["gcn"]["topology"]["PA"], build("ctrgcn", ours).adjacency, atol=1e-6)
    mapping = joint_mapping(theirs, ours)
    mean, trained = (tree["batch_stats"]["backbone"]["data_bn"]["mean"] for tree in (variables, source.variables))
    np.testing.assert_allclose(mean.reshape(20, 3), mapping @ trained.reshape(25, 3), rtol=1e-5)
    scale = found["data_bn"]["scale"]
    assert given["data_bn"]["scale"].min() <= scale.min() and scale.max() <= given["data_bn"]["scale"].max()
    wrist = [layout.joints.index("left wrist") for layout in (ours, theirs)]
    np.testing.assert_array_equal(scale.reshape(20, 3)[wrist[0]], given["data_bn"]["scale"].reshape(25, 3)[wrist[1]])
    assert (
        "18 joints are joints of the source, 2 are computed from several"
        in report.mapped["params/backbone/data_bn/scale"]
    )
    assert "blocks_1/gcn/values/kernel" in " ".join(report.taken)


def test_joints_that_cannot_be_mapped_are_new_and_said():
    own = Layout(("nose", "tail"), ((1, 0),), centre=0)
    source = source_of("ctrgcn", own)
    variables, report = take(source, LAYOUTS["nw_ucla"])
    assert "other joints, which cannot be mapped: joints " in report.new["params/backbone/data_bn/scale"]
    initial = variables_of(build("ctrgcn", LAYOUTS["nw_ucla"]), LAYOUTS["nw_ucla"])
    assert same(variables["params"]["backbone"]["data_bn"], initial["params"]["backbone"]["data_bn"])
    kernel = variables["params"]["backbone"]["blocks_1"]["gcn"]["values"]["kernel"]
    assert same(kernel, source.variables["params"]["backbone"]["blocks_1"]["gcn"]["values"]["kernel"])


@pytest.mark.parametrize(("backbone", "classifier"), [("ctrgcn", "fc"), ("infogcn", "decoder")])
def test_classes_by_name(backbone, classifier):
    layout = LAYOUTS["nw_ucla"]
    source = source_of(backbone, layout)
    given = source.variables["params"]["backbone"]

    turned, report = take(source, layout, classes=CLASSES[::-1])
    assert report.mapped[f"params/backbone/{classifier}/bias"] == "the same classes in another order"
    np.testing.assert_array_equal(
        turned["params"]["backbone"][classifier]["kernel"], given[classifier]["kernel"][:, ::-1]
    )

    other = ("wave", "clap", "stand up")
    variables, report = take(source, layout, classes=other)
    new = {f"params/backbone/{classifier}/{part}" for part in ("bias", "kernel")}
    if backbone == "infogcn":
        new.add("batch_stats/backbone/z_prior")
        assert same(variables["params"]["backbone"]["fc"], given["fc"])  # a hidden layer there
    assert report.new == dict.fromkeys(new, "other classes: 3 in the source, 3 in this model, 2 in both")
    assert not same(variables["params"]["backbone"][classifier], given[classifier])

    unnamed = dataclasses.replace(source, class_names=None)
    variables, report = take(unnamed, layout, classes=other)
    assert same(variables["params"]["backbone"][classifier], given[classifier])
    assert report.notes == [
        "the source does not name its 3 classes; this model has as many, and they are taken to be the same"
    ]
    assert "3 classes in the source, 2 in this model" in take(unnamed, layout, classes=other[:2])[1].new.values()


def test_fam_and_frm_are_taken_where_they_fit_and_skipped_where_asked():
    layout = LAYOUTS["nw_ucla"]
    source = source_of("ctrgcn", layout)
    extra = {"refinement": {"matrices": np.ones((2, 3)), "phi": np.ones(4)}, "image_encoder": {"kernel": np.ones(5)}}
    source.variables["params"].update(jax.tree.map(lambda leaf: 2 * leaf, extra))
    source.variables["params"]["alignment"] = {"kernel": np.ones(1)}
    initial = variables_of(build("ctrgcn", layout), layout)
    initial["params"].update(extra | {"refinement": {"matrices": np.ones((2, 3)), "phi": np.ones(6)}})
    variables, report = fit(source, initial, layout=layout, class_names=CLASSES, bodies=1, skip=("image_encoder",))
    assert variables["params"]["refinement"]["matrices"].max() == 2
    assert report.new == {
        "params/refinement/phi": "(4,) in the source, (6,) in this model",
        "params/image_encoder/kernel": "comes from elsewhere",
    }
    assert report.unused == ["params/alignment/kernel"]
    assert "not used: alignment, which this model does not have" in report.lines()


def test_bodies_are_kept_or_repeated():
    layout = LAYOUTS["nw_ucla"]
    two = source_of("ctrgcn", layout, bodies=2)
    stored = two.variables["batch_stats"]["backbone"]["data_bn"]["var"]
    for known in (two, dataclasses.replace(two, bodies=None)):  # or by the sizes
        one, report = take(known, layout)
        np.testing.assert_array_equal(one["batch_stats"]["backbone"]["data_bn"]["var"], stored[:60])
        how = report.mapped["batch_stats/backbone/data_bn/var"]
        assert how == "statistics of 2 bodies in the source, 1 in this model: those of the first are kept"
    back, report = take(dataclasses.replace(two, variables=one, bodies=1), layout, bodies=2)
    np.testing.assert_array_equal(back["batch_stats"]["backbone"]["data_bn"]["var"], np.tile(stored[:60], 2))
    mapped, _ = take(two, LAYOUTS["utd_mhad"])
    order = [layout.joints.index(name) for name in LAYOUTS["utd_mhad"].joints]
    np.testing.assert_array_equal(
        mapped["batch_stats"]["backbone"]["data_bn"]["var"].reshape(20, 3), stored[:60].reshape(20, 3)[order]
    )


def test_an_unnamed_layout_is_taken_to_be_the_models_and_that_is_said():
    layout = LAYOUTS["nw_ucla"]
    source = dataclasses.replace(source_of("ctrgcn", layout), layout=None, adjacency=None)
    variables, report = take(source, LAYOUTS["utd_mhad"])
    assert same(variables["params"]["backbone"]["data_bn"], source.variables["params"]["backbone"]["data_bn"])
    (note,) = report.notes
    assert note.startswith("the source does not name its joints; they are taken to be this model's 20, in its order")


def test_weights_of_which_nothing_fits_are_refused():
    source = source_of("ctrgcn", LAYOUTS["nw_ucla"])
    wrong = types.MappingProxyType({"params": {"backbone": {"fc": {"bias": np.ones(9)}}}})
    with pytest.raises(InitialWeightsError, match="W: no array of its backbone fits"):
        take(dataclasses.replace(source, variables=wrong, class_names=None), LAYOUTS["nw_ucla"])
