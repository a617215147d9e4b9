"""Builds the model of a reference beyond its state dict, runs it, and says which values to compare.

`mmcl_jax.pytorch.published` recognizes the model of a state dict and its size.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from experiments.parity import golden
from mmcl_jax.data.layouts import LAYOUTS, Layout
from mmcl_jax.models import losses
from mmcl_jax.models.graphs import hierarchical_adjacency, relative_positions
from mmcl_jax.models.hdgcn import HDGCN
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS
from mmcl_jax.models.infogcn import InfoGCN
from mmcl_jax.pytorch import published as published_models
from mmcl_jax.pytorch.names import IMAGE_ENCODER_ENTRIES
from mmcl_jax.pytorch.state_dicts import Entry


class Model(NamedTuple):
    """A Flax module, PyTorch names of its variables, and why its gradients are meaningless (empty if they are not)."""

    module: nn.Module
    entries: list[Entry]
    idle_gradients: str = ""


class Family(NamedTuple):
    """One kind of model.

    Attributes:
      models: from a reference's name and state dict, the possible models by label; several if neither of them decides.
      inputs: from a reference, the inputs of the module in our axis order.
      values: from the module's output and the labels (or None), named values; with labels also `loss`.
    """

    models: Callable[[str, Mapping[str, Any]], dict[str, Model]]
    inputs: Callable[[Mapping], tuple[np.ndarray, ...]]
    values: Callable[[Any, jax.Array | None], dict[str, jax.Array]]


def recognise(state_dict: Mapping[str, Any]) -> tuple[str, Family]:
    """Returns the name of the model of a state dict, and its family. Raises: TorchWeightsError."""
    name = published_models.recognise(state_dict)
    return name, FAMILIES[name]


def template(model: Model, inputs: tuple[np.ndarray, ...], dtype: type = np.float32) -> dict:
    """The model's Flax variables, all zero; variables that PyTorch does not store stay zero. Raises: GoldenError."""
    try:
        shapes = jax.eval_shape(lambda *inputs: model.module.init(jax.random.key(0), *inputs, train=False), *inputs)
    except Exception as error:  # Flax or JAX, depending on the layer where the sizes clash
        seen = ", ".join(str(x.shape) for x in inputs)
        raise golden.GoldenError(f"inputs of shape {seen} (in this file) do not fit the weights: {error}") from error
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


def _skeleton(published: str, variants: Callable[[str, Any], dict[str, Any]] | None = None) -> Callable:
    """`Family.models` of a published skeleton model.

    Args:
      published: a key of `published.PUBLISHED`.
      variants: from the reference's name and a module of the right size, the possible modules by label; None: only that
        module. Adjacencies that are parameters come with the weights.
    """

    def models(name: str, state_dict: Mapping[str, Any]) -> dict[str, Model]:
        sizes, entries = published_models.measure(published, state_dict)
        module = published_models.PUBLISHED[published].module(sizes)
        modules = variants(name, module) if variants else {"": module}
        return {label: Model(module, entries, _idle_gradients(module)) for label, module in modules.items()}

    return models


def _idle_gradients(module: nn.Module) -> str:
    if isinstance(module, InfoGCN) and not module.relative_positions.any():
        return "every input becomes zero, so only rounding decides"
    return ""


# Number of joints -> layout, and the relatives that Info-GCN's published code uses for it.
_LAYOUTS = {25: (LAYOUTS["ntu"], "ancestors"), 20: (LAYOUTS["nw_ucla"], "descendants")}


def _layout(num_joints: int) -> tuple[Layout, str]:
    if num_joints not in _LAYOUTS:
        raise golden.GoldenError(f"{num_joints} joints: layouts are known only for {', '.join(map(str, _LAYOUTS))}")
    return _LAYOUTS[num_joints]


def _hdgcn(name: str, module: HDGCN) -> dict[str, HDGCN]:
    """The center of mass decides which joints are in a layer. No shape tells it, but the name may."""
    num_layers, *_, num_joints = module.adjacency.shape
    layout, _ = _layout(num_joints)
    adjacencies = {f"com{center}": hierarchical_adjacency(layout, center) for center in (1, 2, 21)}
    models = {
        label: module.clone(adjacency=adjacency)
        for label, adjacency in adjacencies.items()
        if len(adjacency) == num_layers
    }
    if not models:
        raise golden.GoldenError(f"no centre of mass makes {num_layers} layers of {num_joints} joints")
    found = re.search(r"com\d+", name)
    return {found[0]: models[found[0]]} if found and found[0] in models else models


def _infogcn(name: str, module: InfoGCN) -> dict[str, InfoGCN]:
    """k decides which bones the model sees. No shape tells it, but the name may. References have no latent noise."""
    layout, relatives = _layout(len(module.relative_positions))
    found = re.search(r"k(\d+)", name)
    return {
        f"k{k}": module.clone(relative_positions=relative_positions(layout, k, relatives), latent_noise=0.0)
        for k in ((int(found[1]),) if found else (0, 1, 8))
    }


def _image_encoder(encoder: str) -> Callable[[str, Mapping[str, Any]], dict[str, Model]]:
    """`Family.models` of a key of `IMAGE_ENCODERS`."""

    def models(name: str, state_dict: Mapping[str, Any]) -> dict[str, Model]:
        del name
        module = IMAGE_ENCODERS[encoder].module(num_classes=len(state_dict["fc.bias"]))
        return {"": Model(module, IMAGE_ENCODER_ENTRIES[encoder]())}

    return models


FAMILIES = {
    "ctrgcn": Family(_skeleton("ctrgcn"), _clips, _classification),
    "ctrsgcn": Family(_skeleton("ctrsgcn"), _clips, _classification),
    "hdgcn": Family(_skeleton("hdgcn", _hdgcn), _clips, _classification),
    "infogcn": Family(_skeleton("infogcn", _infogcn), _clips, _classification),
    "mmcl": Family(_skeleton("mmcl"), _mmcl_inputs, _co_learning),
    "inception_v3": Family(_image_encoder("inception_v3"), _images, _image_classification),
    "resnet34": Family(_image_encoder("resnet34"), _images, _image_classification),
}
