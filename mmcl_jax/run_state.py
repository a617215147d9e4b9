"""The state of a run: its shapes, how it begins, and the variables in it."""

import functools
import pathlib

import jax
import numpy as np

from mmcl_jax import steps
from mmcl_jax.image_features import pretrained_variables
from mmcl_jax.models.mmcl import BACKBONE
from mmcl_jax.pretrained import announce, start_from
from mmcl_jax.steps import TrainState
from mmcl_jax.task import TrainingTask


def state_shapes(task: TrainingTask) -> TrainState:
    """The shapes and types of every state of a run."""
    return jax.eval_shape(functools.partial(steps.random_state, task.recipe, task.config.seed, task.input_shapes()))


def check_weights(task: TrainingTask) -> None:
    """Reads the weights that a run starts from, to find before anything is written whether they exist and fit.

    Raises: as `pretrained.start_from` and `image_features.pretrained_variables`.
    """
    if task.config.init_from:
        blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state_variables(state_shapes(task)))
        start_from(task.config.init_from, task, blank)
    if task.image_size is not None and task.config.model.image_encoder_weights:
        pretrained_variables(task.config)


def create_state(task: TrainingTask, workdir: pathlib.Path | None = None) -> TrainState:
    """Initial state from the config's seed.

    The image encoder starts from its weights file if one is given; the rest from the model in `init_from`, where it
    fits, which is logged and, with a `workdir`, written into it.
    """
    state = steps.draw_state(task.recipe, task.config.seed, task.input_shapes())
    params, batch_stats = state.params, state.batch_stats
    if task.config.init_from:
        variables, report = start_from(task.config.init_from, task, state_variables(state))
        params, batch_stats = variables["params"], variables["batch_stats"]
        announce(report, workdir)
    if task.recipe.model.image_encoder is not None and task.config.model.image_encoder_weights:
        pretrained = pretrained_variables(task.config)
        params = {**params, "image_encoder": pretrained["params"]}
        batch_stats = {**batch_stats, "image_encoder": pretrained["batch_stats"]}
    if params is state.params:
        return state
    return steps.start_state(task.recipe, params, batch_stats)


def state_variables(state: TrainState) -> dict:
    """The variables of `MMCL`."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def backbone_variables(state: TrainState) -> dict:
    """The skeleton model's variables, all that inference needs: their moving average, if there is one."""
    if state.average is not None:
        return state.average
    return {
        "params": state.params[BACKBONE],
        "batch_stats": state.batch_stats[BACKBONE],
    }
