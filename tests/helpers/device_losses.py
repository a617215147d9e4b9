"""A program for test_train: the first training steps on one of eight devices and on all eight, as JSON.

python -m tests.helpers.device_losses RECORDS STEPS

At every step both start from the state that the one device reached: the test compares the steps, not how fast rounding
errors grow between them.
"""

import json
import sys

import jax
import numpy as np

from mmcl_jax import run_state
from mmcl_jax.batches import train_batches
from mmcl_jax.runtime import sharding
from mmcl_jax.runtime.backend import tune_training_compiler
from mmcl_jax.steps import compile_step, empty_totals
from mmcl_jax.task import build_training_task
from tests.helpers.runs import tiny_config
from tests.helpers.shallow import make_shallow


def compare(records: str, steps: int) -> dict[str, list[float]]:
    """Losses by step of MMCL with FAM and FRM in batches of 16, groups of 8, at the tiny config's learning rate.

    The backbone has three blocks. Also the relative error, over all parameters, of what the step adds to them.
    """
    make_shallow()
    config = tiny_config(records, batch_size=16, model__batch_norm_group_size=8, loss__contrastive_group_size=8)
    task = build_training_task(config)
    batches = train_batches(task, (0, steps))
    meshes = {"one": sharding.data_mesh(jax.devices()[:1]), "eight": sharding.data_mesh(jax.devices())}
    # On the eight, absent bodies are computed once, in two groups of 16 bodies, which the devices share.
    capacities = {"one": None, "eight": 16}
    step = {
        name: compile_step(task.recipe, config.seed, mesh, capacity=capacities[name]) for name, mesh in meshes.items()
    }
    state = jax.tree.map(np.asarray, run_state.create_state(task))
    results = {"one": [], "eight": [], "update error": []}
    for batch in batches:
        before, after = state.replace(totals=jax.tree.map(np.asarray, empty_totals())), {}
        for name, mesh in meshes.items():
            placed = jax.device_put(before, sharding.replicated(mesh))
            after[name] = jax.tree.map(np.asarray, step[name](placed, sharding.place_batch(batch, mesh)))
            results[name].append(float(after[name].totals["loss"]))
        one, eight = (_flat(after[name].params) - _flat(before.params) for name in ("one", "eight"))
        results["update error"].append(float(np.linalg.norm(eight - one) / np.linalg.norm(one)))
        state = after["one"]
    return results


def _flat(params) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(params)])


if __name__ == "__main__":
    tune_training_compiler()
    print(json.dumps(compare(sys.argv[1], int(sys.argv[2]))))
