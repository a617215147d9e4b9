"""A trained model as one function of JAX, for clips of any number and any length: raw clips in, probabilities out."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.predictor import Predictor
from mmcl_jax.runtime.backend import HASTY
from mmcl_jax.trained_model import TrainedModel, test_transform


def features_program(model: TrainedModel) -> Callable[[jax.Array], jax.Array]:
    """The function of transformed clips `[N, M, window, V, C]` that returns probabilities, float32 `[N, K]`."""
    description = model.description
    predictor = Predictor(description.backbone(), skips_absent=False)
    prepare = jax.jit(predictor.prepare, static_argnums=1, compiler_options=HASTY)
    prepared = prepare(model.variables, description.clip_shape)

    def probabilities(clips: jax.Array) -> jax.Array:
        logits = predictor.all_logits(prepared, clips)
        return jax.nn.softmax(logits / description.temperature).astype(jnp.float32)

    return probabilities


def raw_program(model: TrainedModel) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The function of raw clips `[N, T, M, V, C]` and their numbers of frames `[N]` that returns probabilities.

    Absent bodies are zero in every frame of a clip; beyond its end it may hold any finite numbers. Bodies that are
    present are moved before absent ones, as `TrainedModel.predict` does.
    """
    description = model.description
    storage = np.dtype(description.config.data.storage)
    classify = features_program(model)

    def probabilities(skeleton: jax.Array, frames: jax.Array) -> jax.Array:
        length = skeleton.shape[1]
        transform = test_transform(description, length)
        frames = jnp.clip(frames, 1, length)
        real = (jnp.arange(length) < frames[:, None])[:, :, None, None, None]
        present = (real & (skeleton != 0)).any((1, 3, 4))
        order = jnp.argsort(~present, axis=1, stable=True)
        clips = jnp.take_along_axis(skeleton.swapaxes(1, 2), order[:, :, None, None, None], axis=1)
        key = jax.random.key(0)  # test transforms draw nothing
        transformed = jax.vmap(transform, (0, 0, 0, None))(clips.astype(storage), frames, present.sum(1), key)
        return classify(transformed)

    return probabilities
