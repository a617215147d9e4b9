"""A program for test_distributed: the losses of training steps left to themselves, in float64, as JSON.

python -m tests.helpers.free_losses RECORDS STEPS CASE [COORDINATOR PROCESS PROCESSES]

In float32 and at the recipe's learning rate two runs diverge within a few steps on any devices: differences grow ten
times and more a step (see docs/equivalence.md). Here they start at 1e-16, and a small learning rate lets them grow
less. Biases do not start at 0 either: values that are constant in all clips would sit on ReLU's kink, where the sign of
a rounding error decides a gradient in any precision.
"""

import functools
import json
import sys

import jax
import numpy as np

from mmcl_jax import run_state
from mmcl_jax.batches import train_batches
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS, ImageEncoder
from mmcl_jax.runtime import distributed, sharding
from mmcl_jax.runtime.backend import HASTY
from mmcl_jax.steps import compile_step
from mmcl_jax.task import build_training_task
from tests.helpers.runs import MeanColour, tiny_config
from tests.helpers.shallow import make_shallow

# Batch size, clips that are normalized together, and how many bodies of these several processes compute; None: all.
# The devices of two processes share the 28 of 32 bodies that a run would compute, or each has a group of 4 clips.
CASES = {"all bodies": (8, 4, None), "packed bodies": (16, 16, 28), "packed groups": (16, 4, 9)}


def losses(records: str, steps: int, case: str) -> list[float]:
    """Losses by step of MMCL with FAM and FRM around three blocks. One process computes all bodies."""
    make_shallow()
    IMAGE_ENCODERS["mean_colour"] = ImageEncoder(MeanColour, image_size=8)
    batch_size, group, capacity = CASES[case]
    config = tiny_config(
        records,
        batch_size=batch_size,
        model__image_encoder="mean_colour",
        learning_rate=2e-4,
        model__batch_norm_group_size=group,
        loss__contrastive_group_size=group,
    )
    task = build_training_task(config)
    mesh = sharding.data_mesh()
    batches = train_batches(task, (0, steps))
    # Compiled in a hurry: a few tiny steps run.
    jax.jit = functools.partial(jax.jit, compiler_options=HASTY)
    state = jax.tree.map(np.array, run_state.create_state(task))
    rng = np.random.default_rng(0)
    state = state.replace(params=jax.tree_util.tree_map_with_path(functools.partial(_off_the_kink, rng), state.params))
    with jax.enable_x64(True):
        double = functools.partial(jax.tree.map, _double)
        state = sharding.replicate(double(state), mesh)
        totals = [0.0]
        step = compile_step(task.recipe, config.seed, mesh, capacity=capacity if jax.process_count() > 1 else None)
        for number, batch in enumerate(batches):
            placed = sharding.place_batch(double(batch), mesh)
            if number == 0:
                step = distributed.compile_together(step, state, placed)
            state = step(state, placed)
            totals.append(float(state.totals["loss"]))
    return np.diff(totals).tolist()


def _off_the_kink(rng: np.random.Generator, path, leaf: np.ndarray) -> np.ndarray:
    is_bias = path[-1].key == "bias"
    return leaf + 0.1 * rng.standard_normal(leaf.shape, np.float32) if is_bias else leaf


def _double(leaf: np.ndarray) -> np.ndarray:
    return leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf


if __name__ == "__main__":
    if len(sys.argv) > 4:
        distributed.join(sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
    print(json.dumps(losses(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
