"""A program for test_distributed: the losses of training steps left to themselves, in float64, as JSON.

python -m tests.free_losses RECORDS STEPS [COORDINATOR PROCESS PROCESSES]

In float32 and at the recipe's learning rate two runs part within a few steps whatever the devices: differences grow ten
times and more a step (see experiments/README.md). Here they start at 1e-16, and a small learning rate lets them grow
less. Nor do biases start at 0: what is constant in all clips would sit on ReLU's kink, where the sign of a rounding
error decides a gradient in any precision. The first loss is computed in float32 too.
"""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax import distributed, experiment, input_pipeline, sharding, train
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS, ImageEncoder
from tests.runs import MeanColour, tiny_config


def losses(records: str, steps: int) -> dict[str, list[float]]:
    """Losses by step of MMCL with FAM and FRM, groups of 4 in batches of 8; `first` is the first in float32."""
    IMAGE_ENCODERS["mean_colour"] = ImageEncoder(MeanColour, image_size=8)
    config = tiny_config(
        records,
        model__image_encoder="mean_colour",
        learning_rate=2e-4,
        model__batch_norm_group_size=4,
        loss__contrastive_group_size=4,
    )
    task = experiment.build_training_task(config)
    mesh = sharding.data_mesh()
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
    # Compiled in a hurry: a few tiny steps run.
    train.jax.jit = functools.partial(train.jax.jit, compiler_options=train._HASTY)
    state = jax.tree.map(np.array, train.create_state(task, config))
    rng = np.random.default_rng(0)
    state = state.replace(params=jax.tree_util.tree_map_with_path(functools.partial(_off_the_kink, rng), state.params))
    placed = [sharding.place_batch(batch, mesh) for batch in batches]
    single = _run(task, config, mesh, state, placed[:1])
    with jax.enable_x64(True):
        double = [{name: _double(array) for name, array in batch.items()} for batch in placed]
        free = _run(task, config, mesh, jax.tree.map(_double_array, state), double)
    return {"first": single, "free": free}


def _run(task, config, mesh, state, batches) -> list[float]:
    state = sharding.replicate(state, mesh)
    step = train.compile_step(task, config, mesh)
    step = distributed.compile_together(step, state, batches[0])
    totals = [0.0]
    for batch in batches:
        state = step(state, batch)
        totals.append(float(state.totals["loss"]))
    return np.diff(totals).tolist()


def _off_the_kink(rng: np.random.Generator, path, leaf: np.ndarray) -> np.ndarray:
    is_bias = path[-1].key == "bias"
    return leaf + 0.1 * rng.standard_normal(leaf.shape, np.float32) if is_bias else leaf


def _double_array(leaf: jax.Array) -> np.ndarray:
    leaf = np.asarray(leaf)
    return leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf


def _double(array: jax.Array) -> jax.Array:
    if array.dtype != jnp.float32:
        return array
    return jax.make_array_from_callback(array.shape, array.sharding, lambda index: _double_array(_shard(array, index)))


def _shard(array: jax.Array, index) -> jax.Array:
    return next(shard.data for shard in array.addressable_shards if shard.index == index)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        distributed.join(sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    print(json.dumps(losses(sys.argv[1], int(sys.argv[2]))))
