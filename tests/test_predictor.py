"""Prediction against the plain model: every backbone, mixtures of bodies, layouts, types, and what is compiled."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.config import get_config
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.data.transforms import STREAMS, TransformOptions, absent_stays_zero, make_transform
from mmcl_jax.models import BACKBONES, folded
from mmcl_jax.predictor import Predictor, make_predictor
from mmcl_jax.runtime.backend import HASTY

pytestmark = pytest.mark.usefixtures("shallow")  # of every kind of block one, and nothing is kept from block to block
CLASSES, FRAMES = 7, 8
hasty = functools.partial(jax.jit, compiler_options=HASTY)


def tiny_config(backbone: str, **data):
    config = get_config()
    config.update_from_flattened_dict({"model.backbone": backbone, "model.base_channels": 4, "data.window": FRAMES})
    config.data.update(data)
    return config


@functools.cache
def built(backbone: str, layout: str = "ntu", bodies: int = 2, channels: int = 3):
    """A model and variables in which nothing has its initial value: alpha, norms and statistics above all."""
    config = tiny_config(backbone)
    model = BACKBONES[backbone](CLASSES, LAYOUTS[layout], min(channels, 3), config.model)
    clip = jnp.zeros((1, bodies, FRAMES, LAYOUTS[layout].num_joints, channels))
    shapes = jax.eval_shape(lambda key: model.init(key, clip, train=False), jax.random.key(0))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("scale", "alpha"):  # of either sign: a max pool does not commute with a negative factor
            return (rng.uniform(0.5, 1.5, leaf.shape) * rng.choice([-1, 1], leaf.shape)).astype(np.float32)
        fan_in = leaf.shape[-2] if leaf.ndim > 1 else 4
        return rng.normal(0, fan_in**-0.5, leaf.shape).astype(np.float32)

    # Statistics of some clips, as training would leave them: without, blocks amplify rounding at will.
    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    clips = rng.normal(size=(4, *clip.shape[1:])).astype(np.float32)
    key = {"dropout": jax.random.key(0)}
    run = hasty(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"], rngs=key)[1]["batch_stats"])
    seen = jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, run(variables, clips), variables["batch_stats"])
    return model, {"params": variables["params"], "batch_stats": {**variables["batch_stats"], **seen}}


def mixed_clips(bodies, layout: str = "ntu", most: int = 2, channels: int = 3, seed: int = 1) -> np.ndarray:
    """Clips of normal joints, absent bodies zero."""
    shape = (len(bodies), most, FRAMES, LAYOUTS[layout].num_joints, channels)
    clips = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    clips[np.arange(most) >= np.asarray(bodies)[:, None]] = 0
    return clips


def plain(model, variables, clips) -> np.ndarray:
    return np.asarray(hasty(lambda v, x: model.apply(v, x, train=False)[0])(variables, clips))


def assert_same(actual, expected, tolerance: float = 1e-5):
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= tolerance * np.linalg.norm(expected)
    assert np.linalg.norm(expected) > 0.1


def predicted(model, variables, clips, bodies, *, skips_absent: bool = True, dtype=None) -> np.ndarray:
    """What `make_predictor` computes, compiled in a hurry."""
    predictor = Predictor(model, skips_absent, dtype)
    prepared = hasty(predictor.prepare, static_argnums=1)(variables, clips.shape[1:])
    return np.asarray(hasty(predictor.logits)(prepared, clips, np.asarray(bodies)))


@functools.cache
def full_predictor():
    """CTR-GCN's, compiled as users compile it."""
    return make_predictor(built("ctrgcn")[1], tiny_config("ctrgcn"), layout=LAYOUTS["ntu"])


def test_copied_bodies_are_computed():
    model, variables = built("ctrgcn")
    clips = mixed_clips([1, 2])
    clips[0, 1] = clips[0, 0]
    actual = predicted(model, variables, clips, [1, 2], skips_absent=False)
    assert_same(actual, plain(model, variables, clips))
    config = tiny_config("ctrgcn", absent_body="copy")
    assert not absent_stays_zero(config.data.absent_body, config.data.sampling)  # which is what make_predictor asks


def test_make_predictor():
    model, variables = built("ctrgcn")
    bodies = np.array([1, 1, 1])  # an odd number: the last two at once are one, and one that is absent
    clips = mixed_clips(bodies)
    assert_same(full_predictor()(clips, bodies), plain(model, variables, clips))
    assert_same(full_predictor()(clips), plain(model, variables, clips))  # all computed, by the same program


@pytest.mark.parametrize(
    ("shape", "bodies", "message"),
    [
        ((3, FRAMES, 25, 3), [1], r"data_bn.*expected .* for clips .*3, .*the clips are not its clips"),
        ((2, FRAMES, 25, 2), [1], r"data_bn"),
        ((2, FRAMES, 20, 3), [1], "V = 25"),
        ((2, FRAMES, 25, 3), [3], r"bodies \[3\], expected a whole number for each of 1 clips, 0 to 2"),
        ((2, FRAMES, 25, 3), [1.5], "expected a whole number"),
        ((2, FRAMES, 25, 3), [1, 1], "for each of 1 clips"),
    ],
)
def test_clips_that_are_not_the_models_are_refused(shape, bodies, message):
    with pytest.raises(ValueError, match=message):
        full_predictor()(np.zeros((1, *shape), np.float32), bodies)


@pytest.mark.parametrize("axis", range(5))
def test_no_clips_bodies_frames_joints_or_channels_are_refused(axis):
    shape = [1, 2, FRAMES, 25, 3]
    shape[axis] = 0
    with pytest.raises(ValueError, match=r"expected \[N, M, T, V, C\] with N > 0, M > 0, T > 0"):
        full_predictor()(np.zeros(shape, np.float32))


def test_weights_of_another_model_are_refused():
    _, variables = built("ctrgcn")
    clips, layout = np.zeros((1, 2, FRAMES, 25, 3), np.float32), LAYOUTS["ntu"]
    with pytest.raises(ValueError, match="'hdgc' is not one of ctrgcn"):
        make_predictor(variables, tiny_config("hdgc"), layout=layout)
    with pytest.raises(ValueError, match="expected params with a classifier"):
        make_predictor({"skeleton": variables}, tiny_config("ctrgcn"), layout=layout)
    wide = tiny_config("ctrgcn")
    wide.model.base_channels = 8
    for wrong in (tiny_config("hdgcn"), wide):
        with pytest.raises(ValueError, match="the weights are of another model"):
            make_predictor(variables, wrong, layout=layout)(clips)


def test_few_bodies():
    """One to four bodies have code of their own: every number of bodies that are present, in every place."""
    model, variables = built("ctrgcn")
    predictor = Predictor(model, skips_absent=True)
    logits = hasty(predictor.logits)
    expected = hasty(lambda v, x: model.apply(v, x, train=False)[0])
    prepared = hasty(predictor.prepare, static_argnums=1)(variables, (2, FRAMES, 25, 3))
    for bodies in itertools.product(range(3), repeat=2):
        clip = mixed_clips(bodies)
        assert_same(np.asarray(logits(prepared, clip, np.array(bodies))), np.asarray(expected(variables, clip)))


@pytest.mark.parametrize(("layout", "most", "channels"), [("nw_ucla", 1, 3), ("coco", 2, 2)])
def test_other_layouts(layout, most, channels):
    backbone = "infogcn" if layout == "coco" else "ctrgcn"
    model, variables = built(backbone, layout, most, channels)
    bodies = [1, most, 1]
    clips = mixed_clips(bodies, layout, most, channels)
    assert_same(predicted(model, variables, clips, bodies), plain(model, variables, clips))


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_folding_is_exact(backbone):
    """In float64 nothing but rounding of 1e-12 is left: no factor is approximated, none forgotten."""
    model, variables = built(backbone)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        clips, bodies = mixed_clips((1, 2)).astype(np.float64), np.array([1, 2])
        actual = predicted(model, wide, clips, bodies)
        assert actual.dtype == np.float64
        assert_same(actual, plain(model, wide, clips), 1e-11)


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_no_batch_norm_is_left(backbone):
    model, variables = built(backbone)
    shapes = jax.eval_shape(functools.partial(folded.fold, model), variables)
    assert shapes["batch_stats"].keys() <= {"z_prior"}
    clip = jax.ShapeDtypeStruct((1, 2, FRAMES, 25, 3), jnp.float32)
    with pytest.raises(ValueError, match="cannot train"):
        jax.eval_shape(lambda v, x: folded.twin_of(model).apply(v, x, train=True), shapes, clip)


def test_nothing_is_compiled_anew(compilations):
    """Neither for other mixtures of bodies nor, in evaluation, for other weights."""
    model, variables = built("ctrgcn")
    mixtures = [[1, 1, 1], [2, 2, 2], [1, 2, 0]]
    full_predictor()(mixed_clips(mixtures[0]), np.array(mixtures[0]))
    predictor = Predictor(model, skips_absent=True)
    prepare, logits = hasty(predictor.prepare, static_argnums=1), hasty(predictor.logits)
    shape = mixed_clips(mixtures[0]).shape[1:]
    logits(prepare(variables, shape), mixed_clips(mixtures[0]), np.array(mixtures[0]))
    other = jax.tree.map(lambda leaf: leaf * 1.01, variables)
    before = compilations()
    for bodies in mixtures:
        full_predictor()(mixed_clips(bodies), np.array(bodies))
        logits(prepare(other, shape), mixed_clips(bodies), np.array(bodies))
    assert compilations() == before


def test_absent_bodies_are_not_computed():
    """What a body holds that is said to be absent changes nothing: the features that were computed once stand in."""
    clips, bodies = mixed_clips((1, 1, 1)), np.array([1, 1, 1])  # an odd number: one absent body is computed too
    filled = clips.copy()
    filled[:, 1] = np.nan
    np.testing.assert_array_equal(full_predictor()(filled, bodies), full_predictor()(clips, bodies))


@pytest.mark.parametrize("stream", STREAMS)
def test_absent_stays_zero_is_true_of_the_transforms(stream):
    raw = jnp.asarray(np.random.default_rng(0).normal(size=(2, 12, 25, 3)), jnp.float32).at[1].set(0)

    def absent(absent_body, sampling):
        options = TransformOptions(sampling, FRAMES, (0.5, 1.0), 0.95, 0.3, True, absent_body, stream)
        transform = make_transform(options, LAYOUTS["ntu"], 12, False, coordinates=3)
        return transform(raw, jnp.int32(12), jnp.int32(1), jax.random.key(0))[1]

    assert absent_stays_zero("zeros", "crop_resize")
    assert not np.any(absent("zeros", "crop_resize"))
    # The others are refused for a reason that one stream at least shows.
    assert not absent_stays_zero("copy", "crop_resize")
    assert np.any(absent("copy", "crop_resize"))
    assert not absent_stays_zero("zeros", "view_normalised")
    assert stream != "joint" or np.any(absent("zeros", "view_normalised"))


def test_bfloat16_features_stay_close():
    model, variables = built("ctrgcn")
    clips = mixed_clips((2,))
    actual = predicted(model, variables, clips, (2,), dtype=jnp.bfloat16)
    assert actual.dtype == np.float32
    assert_same(actual, plain(model, variables, clips), 5e-2)
