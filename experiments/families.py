"""Which of our models a PyTorch state dict belongs to, told by its keys and shapes, and how to run that model."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from experiments import golden
from mmcl_jax import losses, torch_names
from mmcl_jax.models.ctrgcn import CTRGCN
from mmcl_jax.models.inception import InceptionV3
from mmcl_jax.models.mmcl import MMCL, FeatureAlignment, FeatureRefinement
from mmcl_jax.torch_weights import Entry

Shapes = Mapping[str, tuple[int, ...]]  # PyTorch key -> shape


class Model(NamedTuple):
    """A Flax module and how its variables are named in PyTorch."""

    module: nn.Module
    entries: list[Entry]


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


def _mmcl(name: str, shapes: Shapes) -> dict[str, Model]:
    backbone = _ctrgcn(name, shapes)[""].module
    module = MMCL(backbone, None, FeatureAlignment(backbone.feature_width), FeatureRefinement())
    return {"": Model(module, torch_names.mmcl_entries(backbone.base_channels))}


def _inception(name: str, shapes: Shapes) -> dict[str, Model]:
    del name
    return {"": Model(InceptionV3(shapes["fc.bias"][0]), torch_names.inception_entries())}


FAMILIES = {
    "mmcl": Family("PosMatrix", _mmcl, _mmcl_inputs, _co_learning),
    "ctrgcn": Family("l1.gcn1.convs.0.conv1.weight", _ctrgcn, _clips, _classification),
    "inception_v3": Family("Conv2d_1a_3x3.conv.weight", _inception, _images, _image_classification),
}
