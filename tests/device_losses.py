"""A program for test_train: the losses of the first training steps on however many devices there are, as JSON.

python -m tests.device_losses RECORDS STEPS
"""

import json
import sys

import jax
import numpy as np

from mmcl_jax import experiment, input_pipeline, sharding, train
from mmcl_jax.backend import tune_cpu_compiler
from tests.runs import tiny_config

CASES = {
    "whole batch": {},
    "groups of 8": {"model__batch_norm_group_size": 8, "loss__contrastive_group_size": 8},
}


def losses(records: str, steps: int, **changes) -> list[float]:
    """Losses of steps 0 to `steps - 1` of MMCL with FAM and FRM, batches of 16, the tiny config's learning rate."""
    config = tiny_config(records, batch_size=16, **changes)
    mesh = sharding.data_mesh()
    task = experiment.build_training_task(config)
    batches = input_pipeline.train_batches(
        task.skeleton.records,
        task.rows,
        experiment.fields(task, None),
        seed=config.seed,
        batch_size=config.batch_size,
        repeats=config.data.repeats,
        start_step=0,
        end_step=steps,
        threads=2,
        prefetch=16,
    )
    everywhere = sharding.replicated(mesh)
    state = jax.device_put(train.create_state(task, config), everywhere)
    step = train.compile_step(task, config, mesh)
    result = []
    for batch in batches:
        state = state.replace(totals=jax.device_put(train.empty_totals(), everywhere))
        state = step(state, sharding.place_batch(batch, mesh))
        result.append(np.asarray(state.totals["loss"]).item())
    return result


if __name__ == "__main__":
    tune_cpu_compiler()
    print(json.dumps({name: losses(sys.argv[1], int(sys.argv[2]), **case) for name, case in CASES.items()}))
