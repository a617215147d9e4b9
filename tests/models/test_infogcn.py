"""Info-GCN against the published PyTorch model; its latent sampling, its prior and its initial parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax.config import get_config
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.models import BACKBONES, losses
from mmcl_jax.models.graphs import relative_positions
from mmcl_jax.models.infogcn import HEADS, GraphConv, InfoGCN, JointEmbedding, RectifiedTemporalConv, SelfAttention
from mmcl_jax.models.layers import BatchNorm
from mmcl_jax.pytorch.names import infogcn_entries
from mmcl_jax.pytorch.state_dicts import TorchWeightsError, to_flax, to_torch
from tests.helpers.golden import (
    filled_state_dict,
    gradient_norm_mismatches,
    load,
    model_input,
    relative_error,
)

NTU = functools.partial(relative_positions, LAYOUTS["ntu"])
# The published training outputs are plain cross entropy of the latent means.
PLAIN = {"latent_noise": 0.0, "label_smoothing": 0.0, "mmd_weights": (0.0, 0.0)}

HASTY = {"xla_backend_optimization_level": 0}  # two clips: compiling takes longer than running


def shapes(model: InfoGCN, clips) -> dict:
    return jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), clips)


@pytest.mark.parametrize(
    ("base_channels", "clips", "features", "count"),
    [
        (64, (1, 2, 64, 25, 3), (1, 2, 16, 25, 256), 1_572_227),
        (8, (1, 1, 52, 20, 3), (1, 1, 13, 20, 32), None),
        (4, (1, 1, 52, 20, 3), (1, 1, 13, 20, 16), None),  # fewer than 8 channels: one a head
    ],
)
def test_parameter_count_and_shapes(base_channels, clips, features, count):
    model = InfoGCN(120, np.eye(clips[3], dtype=np.float32), base_channels)
    x = jax.ShapeDtypeStruct(clips, jnp.float32)
    variables = shapes(model, x)
    if count is not None:
        assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    run = functools.partial(jax.eval_shape, functools.partial(model.apply, train=False), variables)
    logits, aux = run(x)
    assert logits.shape == (1, 120)
    assert {name: leaf.shape for name, leaf in aux.items()} == {"z": (1, features[-1]), "z_prior": (120, features[-1])}
    before_pooling = jax.eval_shape(functools.partial(model.apply, train=False, method="features"), variables, x)
    assert before_pooling.shape == features
    assert model.feature_width == features[-1]


@pytest.fixture(scope="module")
def evaluated():
    """Evaluation of the published model, compiled once for every k: the features' matrix is an argument."""
    run = lambda matrix, variables, clips: InfoGCN(120, matrix).apply(variables, clips, train=False)[0]  # noqa: E731
    return jax.jit(run, compiler_options=HASTY)


@pytest.fixture(scope="module")
def trained():
    """Loss, logits, changed statistics and gradients of the published model, compiled once for every k."""

    def run(matrix, variables, clips, labels):
        def loss(params):
            model = InfoGCN(120, matrix, **PLAIN)
            (logits, aux), updates = model.apply({**variables, "params": params}, clips, True, mutable=["batch_stats"])
            return model.classification_loss(logits, aux, labels), (logits, updates["batch_stats"])

        (value, (logits, updates)), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return value, logits, updates, gradients

    return jax.jit(run, compiler_options=HASTY)


@pytest.fixture(params=(0, 1, 8), ids="k{}".format)
def published(request):
    """k, its reference, the published weights and clips."""
    reference, expected = load(f"infogcn_k{request.param}_ntu120")
    clips = model_input(reference).transpose(0, 4, 2, 3, 1)
    return request.param, reference, expected, imported(filled_state_dict(reference), clips), clips


def imported(state_dict: dict, clips) -> dict:
    template = shapes(InfoGCN(120, NTU(8)), clips)
    template["batch_stats"]["z_prior"] = np.full((120, 256), 0.5, np.float32)
    return to_flax(state_dict, infogcn_entries(), template)


def test_published_logits(published, evaluated):
    k, _, expected, variables, clips = published
    assert relative_error(evaluated(NTU(k), variables, clips), expected["eval_logits"]) <= 1e-4


def test_published_training(published, trained):
    k, reference, expected, variables, clips = published

    def run(clips):
        *values, gradients = trained(NTU(k), variables, clips, expected["labels"])
        return *values, to_torch({"params": gradients}, infogcn_entries())

    value, logits, statistics, gradients = run(clips)
    assert relative_error(logits, expected["train_logits"]) <= 1e-3
    assert float(value) == pytest.approx(float(expected["train_loss"]), rel=1e-3)
    # k = 0 makes every input zero. The published program's rounding in front of the first batch norm is then what it
    # amplifies most, by 1 / sqrt(1e-5), and clips and frames that are all alike cross a ReLU's kink together: a change
    # of 1e-5 in one bias moves our own gradients by 4 %. There is nothing to compare.
    if k > 0:
        assert gradient_norm_mismatches(gradients, reference, lambda moved: run(*moved)[3], (clips,)) == []
    np.testing.assert_array_equal(statistics.pop("z_prior"), 0.5)
    before = {name: tree for name, tree in variables["batch_stats"].items() if name != "z_prior"}
    changed = jax.tree.map(lambda new, old: (new != old).any(), statistics, before)
    assert all(jax.tree.leaves(changed))


def test_published_weights_come_back_bit_for_bit_without_the_prior():
    reference, _ = load("infogcn_k8_ntu120")
    state_dict = filled_state_dict(reference)
    clips = jax.ShapeDtypeStruct((1, 2, 64, 25, 3), jnp.float32)
    variables = imported(state_dict, clips)
    assert (variables["batch_stats"]["z_prior"] == 0.5).all()
    exported = to_torch(variables, infogcn_entries())
    assert list(exported) == list(state_dict)
    for key, value in state_dict.items():
        assert exported[key].shape == value.shape and exported[key].tobytes() == value.tobytes(), key
    with pytest.raises(TorchWeightsError, match=r"not stored by PyTorch: batch_stats/z_prior; the template must hold"):
        to_flax(state_dict, infogcn_entries(), shapes(InfoGCN(120, NTU(8)), clips))


def random_like(template, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), template)


def test_attention_and_graph_convolution_by_hand():
    channels_in, channels, joints = 16, 8, 5
    rng = np.random.default_rng(1)
    x = rng.normal(size=(channels_in, 2, 1, 3, joints)).astype(np.float32)  # [C, N, M, T, V]
    conv = GraphConv(channels, functools.partial(BatchNorm, channel_major=True))
    variables = random_like(jax.eval_shape(lambda: conv.init(jax.random.key(0), x, False)))
    params, statistics = variables["params"], variables["batch_stats"]
    attention = SelfAttention().apply({"params": params["attention"]}, x)
    actual = conv.apply(variables, x, False)

    def normalised(name: str, y: np.ndarray) -> np.ndarray:
        mean, var = statistics[name]["mean"], statistics[name]["var"]
        return (y - mean) / np.sqrt(var + 1e-5) * params[name]["scale"] + params[name]["bias"]

    norm, linear = params["attention"]["norm"], params["attention"]["queries_keys"]
    for n in range(2):
        for t in range(3):
            frame = x[:, n, 0, t].T.astype(np.float64)  # [V, C]
            centred = frame - frame.mean(axis=1, keepdims=True)
            scaled = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 1e-5)
            both = (scaled * norm["scale"] + norm["bias"]) @ linear["kernel"] + linear["bias"]
            queries, keys = both.reshape(joints, 2, HEADS, channels_in // 8).transpose(1, 2, 0, 3)
            expected = 0
            for head in range(HEADS):
                weights = np.exp(queries[head] @ keys[head].T / np.sqrt(channels_in // 8))
                weights /= weights.sum(axis=1, keepdims=True)
                np.testing.assert_allclose(attention[head, n, 0, t], weights, rtol=1e-5)
                gathered = weights * params["shared_topology"][head] @ frame
                expected += gathered @ params["kernel"][head] + params["bias"][head]
            down = frame @ params["down"]["kernel"] + params["down"]["bias"]
            expected = np.maximum(normalised("bn", expected) + normalised("down_bn", down), 0)
            np.testing.assert_allclose(actual[:, n, 0, t].T, expected, rtol=1e-4, atol=1e-5)


def head_of(model: InfoGCN, key: int = 0) -> dict:
    features = jnp.zeros((1, 1, 1, 1, model.feature_width))
    return model.init(jax.random.key(key), features, train=False, method="head")


def test_the_latent_vector_is_random_in_training_alone():
    model = InfoGCN(5, np.eye(20), base_channels=4)
    variables = {**head_of(model), "params": random_like(head_of(model)["params"])}
    features = np.random.default_rng(0).normal(size=(1, 1, 2, 3, 16)).astype(np.float32).repeat(4000, axis=0)
    head = functools.partial(model.apply, variables, features, method="head")

    logits, aux = head(train=False)
    hidden = relu_dense(variables["params"]["fc"], features[0].mean(axis=(0, 1, 2)))
    mean, logvar = (dense(variables["params"][name], hidden) for name in ("fc_mu", "fc_logvar"))
    np.testing.assert_allclose(aux["z"][0], mean, rtol=1e-5)
    np.testing.assert_allclose(logits[0], dense(variables["params"]["decoder"], mean), rtol=1e-5)

    sampled = [head(train=True, rngs={"dropout": jax.random.key(key)}) for key in (0, 0, 1)]
    np.testing.assert_array_equal(sampled[0][0], sampled[1][0])
    assert (sampled[0][0] != sampled[2][0]).all()
    z = sampled[0][1]["z"]
    np.testing.assert_allclose(z.std(axis=0), np.exp(0.1 * logvar), rtol=0.05)
    np.testing.assert_allclose((z.mean(axis=0) - mean) / np.exp(0.1 * logvar), 0, atol=0.08)
    np.testing.assert_allclose(sampled[0][0], dense(variables["params"]["decoder"], z), rtol=1e-4, atol=1e-4)

    quiet, _ = model.clone(latent_noise=0.0).apply(variables, features, train=True, method="head")
    np.testing.assert_array_equal(quiet, logits)


def test_the_latent_deviation_is_bounded():
    model = InfoGCN(5, np.eye(20), base_channels=4)
    variables = head_of(model)
    variables["params"]["fc_logvar"]["bias"] = np.full(16, 1e4, np.float32)
    features = np.zeros((2000, 1, 1, 1, 16), np.float32)
    _, aux = model.apply(variables, features, train=True, method="head", rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(aux["z"].std(axis=0), 100, rtol=0.1)


def dense(params: dict, x: np.ndarray) -> np.ndarray:
    return x @ params["kernel"] + params["bias"]


def relu_dense(params: dict, x: np.ndarray) -> np.ndarray:
    return np.maximum(dense(params, x), 0)


@pytest.mark.parametrize("classes", [5, 40])
def test_the_prior_is_orthogonal_and_comes_of_the_seed(classes):
    model = InfoGCN(classes, np.eye(20), base_channels=4, prior_gain=2.0)
    first, again, other = (np.asarray(head_of(model, key)["batch_stats"]["z_prior"]) for key in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    products = first @ first.T if classes <= 16 else first.T @ first
    np.testing.assert_allclose(products, 4 * np.eye(min(classes, 16)), atol=1e-5)


def test_classification_loss_is_the_sum_of_its_terms():
    rng = np.random.default_rng(0)
    logits, z, z_prior = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 5), (6, 16), (5, 16)))
    labels, aux = np.array([0, 3, 3, 1, 0, 3]), {"z": z, "z_prior": z_prior}
    loss = InfoGCN(5, np.eye(20), label_smoothing=0.2, mmd_weights=(0.3, 0.7)).classification_loss(logits, aux, labels)
    expected = (
        losses.smoothed_cross_entropy(logits, labels, 0.2)
        + 0.3 * losses.mean_norm(z)
        + 0.7 * losses.class_prior_distance(z, z_prior, labels)
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    plain = InfoGCN(5, np.eye(20), **PLAIN).classification_loss(logits, aux, labels)
    assert float(plain) == pytest.approx(float(losses.cross_entropy(logits, labels)), rel=1e-6)


def test_initial_parameters():
    norm = functools.partial(BatchNorm, channel_major=True)
    x = jnp.ones((64, 1, 1, 4, 20))
    key = jax.random.key(0, impl="rbg")  # compiles fast
    conv = jax.jit(lambda: GraphConv(64, norm).init(key, x, True)["params"], compiler_options=HASTY)()
    np.testing.assert_array_equal(conv["shared_topology"], np.stack([np.eye(20)] * HEADS))
    assert float(conv["kernel"].std()) == pytest.approx((2 / (64 * 64 * HEADS)) ** 0.5, rel=0.1)
    assert float(conv["attention"]["queries_keys"]["kernel"].std()) == pytest.approx(1, rel=0.1)
    assert 0.1 < float(jnp.abs(conv["attention"]["queries_keys"]["bias"]).max()) <= 1 / 8
    np.testing.assert_array_equal(conv["bn"]["scale"], np.float32(1e-6))

    temporal = jax.jit(lambda: RectifiedTemporalConv(64, 1, norm).init(key, x, True)["params"]["convolution"])()
    for leaves, fan_in in ((temporal["reduce"], 64), (temporal["conv_dilation_1"], 16 * 5)):
        for leaf in leaves.values():
            assert 0.8 * fan_in**-0.5 < float(jnp.abs(leaf).max()) <= fan_in**-0.5
    np.testing.assert_array_equal(temporal["out_bn"]["scale"], 1)

    head = head_of(InfoGCN(120, np.eye(20), base_channels=16))["params"]
    for name in ("fc", "fc_mu", "fc_logvar"):
        bound = (2 * 6 / (64 + 64)) ** 0.5
        assert 0.95 * bound < float(jnp.abs(head[name]["kernel"]).max()) <= bound
        assert 0.1 < float(jnp.abs(head[name]["bias"]).max()) <= 1 / 8
    assert float(head["decoder"]["kernel"].std()) == pytest.approx((2 / 120) ** 0.5, rel=0.1)


def test_confidence_is_no_position():
    relative = relative_positions(LAYOUTS["ntu"], 1)
    clip = np.random.default_rng(0).normal(size=(1, 1, 2, 25, 3)).astype(np.float32)
    embedding = JointEmbedding(4, relative, coordinates=2)
    variables = embedding.init(jax.random.key(0), clip)
    identity = {"joint": {"kernel": np.eye(3, 4), "bias": np.zeros(4)}, "position": np.zeros((25, 4))}
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.shape, b.shape), variables["params"], identity)
    embedded = embedding.apply({"params": identity}, clip)
    np.testing.assert_allclose(embedded[..., :2], np.einsum("uv,nmtvc->nmtuc", relative, clip[..., :2]), atol=1e-6)
    np.testing.assert_array_equal(embedded[..., 2], clip[..., 2])


def test_configuration():
    options = get_config().model
    model = BACKBONES["infogcn"](12, LAYOUTS["ntu"], 3, options)
    np.testing.assert_array_equal(model.relative_positions, np.eye(25))
    assert model.latent_noise == model.label_smoothing == 0.1
    assert model.mmd_weights == (1e-4, 1e-1)
    assert model.prior_gain == 3
    options.k, options.relatives = 1, "descendants"
    bones = BACKBONES["infogcn"](12, LAYOUTS["ntu"], 3, options).relative_positions
    np.testing.assert_array_equal(bones, relative_positions(LAYOUTS["ntu"], 1, "descendants"))
    for key, value, message in (
        ("k", -1, "k -1 is negative"),
        ("relatives", "siblings", "relatives 'siblings' is not one of"),
        ("latent_noise", -0.1, "latent_noise -0.1 is negative"),
        ("label_smoothing", 1.5, "label_smoothing 1.5 is not within 0 and 1"),
        ("mmd_weights", (1.0,), r"mmd_weights \(1.0,\) are not two weights"),
        ("mmd_weights", (1.0, -1.0), r"mmd_weights \(1.0, -1.0\) are not two weights"),
        ("prior_gain", 0.0, "prior_gain 0.0 is not positive"),
    ):
        wrong = get_config().model
        wrong[key] = value
        with pytest.raises(ValueError, match=message):
            BACKBONES["infogcn"](12, LAYOUTS["ntu"], 3, wrong)
