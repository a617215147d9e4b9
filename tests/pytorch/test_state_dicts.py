"""The PyTorch weight mapping: exact both ways, and strict."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.models.inception import InceptionV3
from mmcl_jax.pytorch.names import inception_entries
from mmcl_jax.pytorch.state_dicts import (
    Entry,
    TorchWeightsError,
    alias_entries,
    array_entry,
    batch_norm_entries,
    conv_entries,
    linear_entries,
    nested,
    resolve_aliases,
    to_flax,
    to_torch,
)

# A model with one of everything: two 1x1 convolutions stacked in a matrix, a temporal one, a plain one, a scalar.
ENTRIES = [
    array_entry("adjacency", ("graph", "adjacency"), 3),
    Entry("alpha", "params", ("alpha",), (), 1),
    *conv_entries("relate.0", ("relate",), axes=(1, 0), index=(slice(None), 0)),
    *conv_entries("relate.1", ("relate",), axes=(1, 0), index=(slice(None), 1)),
    *conv_entries("tcn", ("tcn",), axes=(2, 1, 0), kernel="time_kernel"),
    *conv_entries("conv", ("conv",), bias=False),
    *batch_norm_entries("bn.0", ("bn",), index=(slice(0, 4),)),
    *batch_norm_entries("bn.1", ("bn",), index=(slice(4, 6),)),
    *linear_entries("fc", ("fc",)),
    Entry("unused.weight", "ignored"),
]
SHAPES = {
    "adjacency": (3, 5, 5),
    "alpha": (1,),
    "relate.0.weight": (4, 6, 1, 1),
    "relate.0.bias": (4,),
    "relate.1.weight": (4, 6, 1, 1),
    "relate.1.bias": (4,),
    "tcn.weight": (7, 6, 5, 1),
    "tcn.bias": (7,),
    "conv.weight": (7, 6, 3, 2),
    **{f"bn.0.{leaf}": (4,) for leaf in ("weight", "bias", "running_mean", "running_var")},
    "bn.0.num_batches_tracked": (),
    **{f"bn.1.{leaf}": (2,) for leaf in ("weight", "bias", "running_mean", "running_var")},
    "bn.1.num_batches_tracked": (),
    "fc.weight": (9, 7),
    "fc.bias": (9,),
}
TEMPLATE = {
    "params": {
        "graph": {"adjacency": np.zeros((3, 5, 5), np.float32)},
        "alpha": np.zeros((), np.float32),
        "relate": {"kernel": np.zeros((6, 2, 4), np.float32), "bias": np.zeros((2, 4), np.float32)},
        "tcn": {"time_kernel": np.zeros((5, 6, 7), np.float32), "time_bias": np.zeros(7, np.float32)},
        "conv": {"kernel": np.zeros((3, 2, 6, 7), np.float32)},
        "bn": {"scale": np.zeros(6, np.float32), "bias": np.zeros(6, np.float32)},
        "fc": {"kernel": np.zeros((7, 9), np.float32), "bias": np.zeros(9, np.float32)},
    },
    "batch_stats": {"bn": {"mean": np.zeros(6, np.float32), "var": np.zeros(6, np.float32)}},
}


def random_state_dict(shapes):
    rng = np.random.default_rng(0)
    drawn = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    return {
        key: np.zeros((), np.int64) if key.endswith("tracked") else abs(value) if key.endswith("var") else value
        for key, value in drawn.items()
    }


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for key, value in expected.items():
        assert actual[key].dtype == value.dtype and actual[key].shape == value.shape, key
        assert actual[key].tobytes() == value.tobytes(), key


def test_round_trip_is_bit_for_bit():
    state_dict = random_state_dict(SHAPES)
    variables = to_flax(state_dict, ENTRIES, TEMPLATE)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, TEMPLATE)
    assert_same(to_torch(variables, ENTRIES), state_dict)


def test_values_land_where_pytorch_means_them():
    state_dict = random_state_dict(SHAPES)
    params = to_flax(state_dict, ENTRIES, TEMPLATE)["params"]
    np.testing.assert_array_equal(params["relate"]["kernel"][:, 1], state_dict["relate.1.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(params["relate"]["bias"][1], state_dict["relate.1.bias"])
    assert params["tcn"]["time_kernel"][3, 2, 1] == state_dict["tcn.weight"][1, 2, 3, 0]
    assert params["conv"]["kernel"][2, 1, 4, 5] == state_dict["conv.weight"][5, 4, 2, 1]
    np.testing.assert_array_equal(params["bn"]["scale"][4:], state_dict["bn.1.weight"])
    assert params["alpha"] == state_dict["alpha"][0]


def test_gradients_alone_convert():
    state_dict = random_state_dict(SHAPES)
    variables = to_flax(state_dict, ENTRIES, TEMPLATE)
    gradients = to_torch({"params": jax.tree.map(jnp.asarray, variables["params"])}, ENTRIES)
    learned = {key: value for key, value in state_dict.items() if "running" not in key and "tracked" not in key}
    assert_same(gradients, learned)


def test_accepts_data_parallel_names_counters_and_ignored_keys():
    state_dict = random_state_dict(SHAPES)
    published = {f"module.{key}": value for key, value in state_dict.items() if not key.startswith("bn.1.num")}
    published["module.bn.0.num_batches_tracked"] = np.asarray(17)
    published["module.unused.weight"] = np.ones((3, 3), np.float32)
    assert_same(to_torch(to_flax(published, ENTRIES, TEMPLATE), ENTRIES), state_dict)


ALIASED = [*ENTRIES, *alias_entries(ENTRIES, "bn.1.", "last."), *alias_entries(ENTRIES, "fc.", "classifier.")]


def aliased_state_dict():
    state_dict = random_state_dict(SHAPES)
    names = {"bn.1": "last", "fc": "classifier"}
    second = {
        key.replace(first, name): state_dict[key] for first, name in names.items() for key in SHAPES if first in key
    }
    return state_dict | second


def test_second_names_are_imported_when_equal_and_exported():
    state_dict = aliased_state_dict()
    variables = to_flax(state_dict, ALIASED, TEMPLATE)
    assert_same(to_torch(variables, ALIASED), state_dict)
    jax.tree.map(np.testing.assert_array_equal, variables, to_flax(random_state_dict(SHAPES), ENTRIES, TEMPLATE))
    gradients = to_torch({"params": variables["params"]}, ALIASED)
    assert not any(key.startswith(("last.", "classifier.")) for key in gradients)


def test_second_names_inside_another_model():
    entries = nested(ALIASED, "skeleton.", ("backbone",))
    template = {kind: {"backbone": tree} for kind, tree in TEMPLATE.items()}
    state_dict = {f"skeleton.{key}": value for key, value in aliased_state_dict().items()}
    assert_same(to_torch(to_flax(state_dict, entries, template), entries), state_dict)


def test_second_names_that_are_missing_or_unequal_are_problems():
    state_dict = aliased_state_dict()
    del state_dict["last.weight"]
    state_dict["classifier.bias"] = state_dict["classifier.bias"] + 1
    with pytest.raises(TorchWeightsError) as error:
        to_flax(state_dict, ALIASED, TEMPLATE)
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        "missing: last.weight, expected the values of bn.1.weight",
        "unequal: classifier.bias and fc.bias, expected the same values: they name one tensor",
    ]


def test_of_two_unequal_names_pytorch_keeps_the_later():
    state_dict = aliased_state_dict()
    state_dict["classifier.bias"] = state_dict["classifier.bias"] + 1
    resolved = resolve_aliases(state_dict, ALIASED)
    assert list(resolved) == list(state_dict)
    params = to_flax(resolved, ALIASED, TEMPLATE)["params"]
    np.testing.assert_array_equal(params["fc"]["bias"], state_dict["classifier.bias"])
    assert_same(resolve_aliases(aliased_state_dict(), ALIASED), aliased_state_dict())


def test_every_problem_is_listed_at_once():
    state_dict = random_state_dict(SHAPES)
    del state_dict["relate.1.weight"], state_dict["bn.0.running_var"]
    state_dict["fc.weight"] = state_dict["fc.weight"].T
    state_dict["conv.weight"] = state_dict["conv.weight"][..., 0]
    state_dict["tcn.bias"] = np.arange(7)
    state_dict["tcn.weight"][0, 0, 0] = np.nan
    state_dict["alpha"][:] = np.inf
    state_dict["head.weight"] = np.zeros((2, 3), np.float32)
    with pytest.raises(TorchWeightsError) as error:
        to_flax(state_dict, ENTRIES, TEMPLATE)
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert sorted(lines) == sorted(
        [
            "missing: relate.1.weight, expected (4, 6, 1, 1)",
            "missing: bn.0.running_var, expected (4,)",
            "misshapen: fc.weight, seen float32 (7, 9), expected float (9, 7)",
            "misshapen: conv.weight, seen float32 (7, 6, 3), expected float (7, 6, 3, 2)",
            "misshapen: tcn.bias, seen int64 (7,), expected float (7,)",
            "not finite: tcn.weight (7, 6, 5, 1), 1 of 210 values are NaN or infinite",
            "not finite: alpha (1,), 1 of 1 values are NaN or infinite",
            "extra: head.weight, seen (2, 3), expected no such key",
        ]
    )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (ENTRIES[:-3], r"params/fc/kernel \(7, 9\): 63 values, of which 63 have no entry"),
        ([e for e in ENTRIES if e.key != "relate.0.weight"], "48 values, of which 24 have no entry"),
        ([*ENTRIES, array_entry("again", ("fc", "bias"), 1)], "0 have no entry and 9 have several"),
        ([*ENTRIES, ENTRIES[0]], "adjacency: two entries"),
        ([*ENTRIES, *alias_entries(ALIASED, "classifier.", "head.")], "no entry classifier.weight before this second"),
        ([*ENTRIES, array_entry("lost", ("lost",), 1)], "lost: the variables have no leaf params/lost"),
        ([*ENTRIES, array_entry("lost", ("fc", "bias"), 1, (0, 0))], "no part"),
        ([*ENTRIES, array_entry("lost", ("fc", "bias"), 2)], r"axes \(0, 1\) for a part of shape \(9,\)"),
    ],
)
def test_a_wrong_mapping_is_an_error(entries, message):
    with pytest.raises(TorchWeightsError, match=message):
        to_flax(random_state_dict(SHAPES), entries, TEMPLATE)
    with pytest.raises(TorchWeightsError, match=message):
        to_torch(TEMPLATE, entries)


def test_leaves_that_pytorch_does_not_store():
    entries = [*linear_entries("fc", ("fc",)), Entry("prior", "batch_stats", ("prior",), (0,), 1, stored=False)]
    params = {"fc": {"kernel": np.zeros((2, 3), np.float32), "bias": np.zeros(3, np.float32)}}
    state_dict = random_state_dict({"fc.weight": (3, 2), "fc.bias": (3,)})
    prior = np.arange(4, dtype=np.float32)
    variables = to_flax(state_dict, entries, {"params": params, "batch_stats": {"prior": jnp.asarray(prior)}})
    np.testing.assert_array_equal(variables["batch_stats"]["prior"], prior)
    assert_same(to_torch(variables, entries), state_dict)

    shapes = {"params": params, "batch_stats": {"prior": jax.ShapeDtypeStruct((4,), jnp.float32)}}
    with pytest.raises(TorchWeightsError, match="not stored by PyTorch: batch_stats/prior; the template must hold"):
        to_flax(state_dict, entries, shapes)
    with pytest.raises(TorchWeightsError, match="extra: prior"):
        to_flax({**state_dict, "prior": prior}, entries, variables)
    with pytest.raises(TorchWeightsError, match=r"batch_stats/prior .* 4 have no entry"):
        to_torch(variables, entries[:-1])


def test_nested_models():
    entries = nested(ENTRIES, "image.", ("encoder", "cnn"))
    template = {kind: {"encoder": {"cnn": tree}} for kind, tree in TEMPLATE.items()}
    state_dict = {f"image.{key}": value for key, value in random_state_dict(SHAPES).items()}
    assert_same(to_torch(to_flax(state_dict, entries, template), entries), state_dict)


def test_inception_round_trip():
    images = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    template = jax.eval_shape(lambda key, x: InceptionV3().init(key, x, False), jax.random.key(0), images)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    state_dict = random_state_dict({key: value.shape for key, value in to_torch(zeros, inception_entries()).items()})
    assert len(state_dict) == 94 * 6 + 2
    assert_same(to_torch(to_flax(state_dict, inception_entries(), template), inception_entries()), state_dict)
    with pytest.raises(TorchWeightsError, match=r"extra: AuxLogits\.conv2\.weight"):
        to_flax({**state_dict, "AuxLogits.conv2.weight": state_dict["fc.bias"]}, inception_entries(), template)
