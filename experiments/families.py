"""Which of our models a PyTorch state dict belongs to, told by its keys and shapes, and how to run that model."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from experiments import golden
from mmcl_jax import losses, torch_names
from mmcl_jax.graphs import LAYOUTS, Layout, hierarchical_adjacency, relative_positions
from mmcl_jax.models.ctrgcn import CTRGCN
from mmcl_jax.models.ctrsgcn import CTRSGCN
from mmcl_jax.models.hdgcn import HDGCN
from mmcl_jax.models.inception import InceptionV3
from mmcl_jax.models.infogcn import InfoGCN
from mmcl_jax.models.mmcl import MMCL, FeatureAlignment, FeatureRefinement
from mmcl_jax.models.resnet import ResNet34
from mmcl_jax.torch_weights import Entry

Shapes = Mapping[str, tuple[int, ...]]  # PyTorch key -> shape


class Model(NamedTuple):
    """A Flax module and how its variables are named in PyTorch; why its gradients say nothing, if they do not."""

    module: nn.Module
    entries: list[Entry]
    idle_gradients: str = ""


class Family(NamedTuple):
    """One kind of model.

    Attributes:
      key: a PyTorch key that only this family has, of those after it in `FAMILIES`.
      models: of the reference's name and shapes: what the model can be, by a label. Several where neither tells.
      inputs: of a reference: the module's inputs, in our axis order.
      values: of the module's output and the labels (or None): named values; with labels `loss` too.
    """

    key: str
    models: Callable[[str, Shapes], dict[str, Model]]
    inputs: Callable[[Mapping], tuple[np.ndarray, ...]]
    values: Callable[[Any, jax.Array | None], dict[str, jax.Array]]


def recognise(keys: Iterable[str]) -> tuple[str, Family]:
    """Returns the family that a state dict with these keys belongs to, and its name.

    Raises:
      GoldenError: none of them.
    """
    keys = set(keys)
    for name, family in FAMILIES.items():
        if family.key in keys:
            return name, family
    raise golden.GoldenError(f"unknown model: none of {', '.join(FAMILIES)} by its {len(keys)} keys")


def template(model: Model, inputs: tuple[np.ndarray, ...], dtype: type = np.float32) -> dict:
    """The model's Flax variables, all zero: what PyTorch does not store stays so."""
    shapes = jax.eval_shape(lambda *inputs: model.module.init(jax.random.key(0), *inputs, train=False), *inputs)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, dtype), shapes)


def clips_last(clips: np.ndarray) -> np.ndarray:
    """`[N, C, T, V, M]` -> `[N, M, T, V, C]`."""
    return clips.transpose(0, 4, 2, 3, 1)


def _single_input(reference: Mapping) -> np.ndarray:
    return golden.inputs(reference["input_name"], tuple(reference["input_shape"]), reference["seed"])


def _clips(reference: Mapping) -> tuple[np.ndarray, ...]:
    return (clips_last(_single_input(reference)),)


def _images(reference: Mapping) -> tuple[np.ndarray, ...]:
    return (_single_input(reference).transpose(0, 2, 3, 1),)


def _mmcl_inputs(reference: Mapping) -> tuple[np.ndarray, ...]:
    """The inputs are named PREFIX/skeleton, PREFIX/image_logits and PREFIX/text; the text is `[N, 1, D]`."""
    drawn = {
        name.rpartition("/")[2]: golden.inputs(name, tuple(shape), reference["seed"])
        for name, shape in reference["inputs"].items()
    }
    text = drawn["text"].reshape(len(drawn["text"]), -1)
    return clips_last(drawn["skeleton"]), drawn["image_logits"], text


def _classification(output, labels) -> dict[str, jax.Array]:
    logits, _ = output
    return {"logits": logits} if labels is None else {"logits": logits, "loss": losses.cross_entropy(logits, labels)}


def _image_classification(logits, labels) -> dict[str, jax.Array]:
    return _classification((logits, {}), labels)


def _co_learning(outputs, labels) -> dict[str, jax.Array]:
    """The released loss: eq. 10 with weights 0.1 and 0.2, temperature 0.4."""
    values = {
        "logits": outputs["logits"],
        "refined": outputs["refined_logits"],
        "contrastive": losses.contrastive(outputs["skeleton_features"], outputs["image_features"], temperature=0.4),
    }
    if labels is None:
        return values
    classification = losses.cross_entropy(outputs["logits"], labels)
    refinement = losses.cross_entropy(outputs["refined_logits"], labels)
    return {**values, "loss": classification + 0.1 * values["contrastive"] + 0.2 * refinement}


def _ctrgcn(name: str, shapes: Shapes) -> dict[str, Model]:
    del name
    base_channels = shapes["l1.gcn1.convs.0.conv3.weight"][0]
    # The adjacency is a parameter: only its shape matters here.
    module = CTRGCN(shapes["fc.bias"][0], np.zeros(shapes["l1.gcn1.PA"], np.float32), base_channels)
    return {"": Model(module, torch_names.ctrgcn_entries(base_channels))}


def _ctrsgcn(name: str, shapes: Shapes) -> dict[str, Model]:
    del name
    base_channels = shapes["l1.gcn1.bn.weight"][0]
    module = CTRSGCN(shapes["fc.bias"][0], np.zeros(shapes["l1.gcn1.PA"], np.float32), base_channels)
    return {"": Model(module, torch_names.ctrsgcn_entries(base_channels))}


def _layout(num_joints: int) -> Layout:
    """NTU's with 25 joints, NW-UCLA's with 20. Raises: GoldenError."""
    names = {25: "ntu", 20: "nw_ucla"}
    if num_joints not in names:
        raise golden.GoldenError(f"{num_joints} joints: a layout is known for {', '.join(map(str, names))} alone")
    return LAYOUTS[names[num_joints]]


def _named(name: str, pattern: str, models: dict[str, Model]) -> dict[str, Model]:
    """The model whose label the name has in it, all where it has none."""
    found = re.search(pattern, name)
    return {found[0]: models[found[0]]} if found and found[0] in models else models


def _hdgcn(name: str, shapes: Shapes) -> dict[str, Model]:
    """The centre of mass decides which joints are in a layer; no shape tells it."""
    base_channels, (num_layers, *_, num_joints) = shapes["l1.gcn1.bn.weight"][0], shapes["l1.gcn1.PA"]
    entries = torch_names.hdgcn_entries(base_channels, num_layers)
    models = {}
    for center in (1, 2, 21):
        adjacency = hierarchical_adjacency(_layout(num_joints), center)
        if len(adjacency) == num_layers:
            models[f"com{center}"] = Model(HDGCN(shapes["fc.bias"][0], adjacency, base_channels), entries)
    if not models:
        raise golden.GoldenError(f"no centre of mass makes {num_layers} layers of {num_joints} joints")
    return _named(name, r"com\d+", models)


def _infogcn(name: str, shapes: Shapes) -> dict[str, Model]:
    """k decides the bones that the model sees; no shape tells it. Without the latent noise, as references are."""
    num_classes, base_channels = shapes["decoder.bias"][0], shapes["to_joint_embedding.bias"][0]
    layout = _layout(shapes["l1.agcn.shared_topology"][-1])
    found = re.search(r"k(\d+)", name)
    models = {}
    for k in (int(found[1]),) if found else (0, 1, 8):
        matrix = relative_positions(layout, k)
        idle = "" if matrix.any() else "every input becomes zero, and rounding alone decides"
        module = InfoGCN(num_classes, matrix, base_channels, latent_noise=0.0)
        models[f"k{k}"] = Model(module, torch_names.infogcn_entries(base_channels), idle)
    return models


def _mmcl(name: str, shapes: Shapes) -> dict[str, Model]:
    backbone = _ctrgcn(name, shapes)[""].module
    module = MMCL(backbone, None, FeatureAlignment(backbone.feature_width), FeatureRefinement())
    return {"": Model(module, torch_names.mmcl_entries(backbone.base_channels))}


def _inception(name: str, shapes: Shapes) -> dict[str, Model]:
    del name
    return {"": Model(InceptionV3(shapes["fc.bias"][0]), torch_names.inception_entries())}


def _resnet(name: str, shapes: Shapes) -> dict[str, Model]:
    del name
    return {"": Model(ResNet34(shapes["fc.bias"][0]), torch_names.resnet34_entries())}


FAMILIES = {
    "mmcl": Family("PosMatrix", _mmcl, _mmcl_inputs, _co_learning),
    "ctrgcn": Family("l1.gcn1.convs.0.conv1.weight", _ctrgcn, _clips, _classification),
    "ctrsgcn": Family("l1.tcn1.conv.weight", _ctrsgcn, _clips, _classification),
    "hdgcn": Family("l2.gcn1.aha.conv_down.0.weight", _hdgcn, _clips, _classification),
    "infogcn": Family("l1.agcn.shared_topology", _infogcn, _clips, _classification),
    "resnet34": Family("layer1.0.conv1.weight", _resnet, _images, _image_classification),
    "inception_v3": Family("Conv2d_1a_3x3.conv.weight", _inception, _images, _image_classification),
}
