"""Training several streams: one after another, as `experiments.streams` does, or in one program (vmap over streams).

CTR-GCN at NTU RGB+D 120's shapes, float32, a step of each stream; random clips that live on the device. The streams
have weights and clips of their own, and one transform here: which numbers it makes does not change what it costs. The
losses of the first steps are compared before anything is timed.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import train
from experiments.benchmark.harness import Contender, Program, alternate
from experiments.benchmark.report import Report
from mmcl_jax import steps
from mmcl_jax.runtime import sharding
from mmcl_jax.runtime.backend import keep_memory, tune_training_compiler
from mmcl_jax.runtime.options import model_width, positive

_TOLERANCE = {"cpu": 1e-3, "gpu": 1e-2}  # GPUs round the operands of float32's products, and by kernels of their own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streams", type=positive, default=4, help="how many (default %(default)s)")
    parser.add_argument("--batch", type=positive, default=16, help="clips a step of each stream (default %(default)s)")
    parser.add_argument(
        "--base-channels", type=model_width, default=64, help="width of the first blocks (default %(default)s)"
    )
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each contender (default %(default)s)")
    parser.add_argument("--turn-seconds", type=float, default=2.0, help="length of a turn (default %(default)s)")


def run(options: argparse.Namespace, report: Report) -> None:
    case = train.Case("ctrgcn", options.batch, options.base_channels, 0, "float32")
    shared = {"case": case, "streams": options.streams}
    contenders = [Contender("one after another", one_by_one, shared), Contender("in one program", together, shared)]
    timings = alternate(
        contenders,
        rounds=options.rounds,
        turn_seconds=options.turn_seconds,
        tolerance=_TOLERANCE[report.machine.backend],
        ready_within=options.ready_within,
    )
    title = f"A step of each of {options.streams} streams, {options.batch} clips each"
    report.timings(title, timings, units=options.streams * options.batch, unit="clip")
    rows = [(timing.name, f"{timing.peak_memory / 1e9:.2f}") for timing in timings if not timing.unavailable]
    report.table("Peak resident memory of each process (on a CPU, the device's too)", ("", "GB"), rows)


def one_by_one(case: train.Case, streams: int) -> Program:
    """A program for one stream, called for each."""
    recipe, clips = _begin(case, streams)
    step = steps.compile_step(recipe, 0, sharding.data_mesh(jax.devices()[:1]))
    batches = [jax.tree.map(lambda values, place=place: values[place], clips) for place in range(streams)]
    states = [_state(recipe, batches[0], seed) for seed in range(streams)]

    def work() -> None:
        nonlocal states
        states = jax.block_until_ready([step(state, batch) for state, batch in zip(states, batches, strict=True)])

    work()
    return Program(work, np.array([state.totals["loss"] for state in states]))


def together(case: train.Case, streams: int) -> Program:
    """A program for all streams."""
    recipe, clips = _begin(case, streams)
    key = jax.random.fold_in(jax.random.key(0), 1)  # as `compile_step` makes it
    step = jax.jit(jax.vmap(functools.partial(steps.train_step, recipe=recipe, key=key)), donate_argnums=0)
    first = jax.tree.map(lambda values: values[0], clips)
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(_state(recipe, first, seed) for seed in range(streams)))

    def work() -> None:
        nonlocal states
        states = jax.block_until_ready(step(states, clips))

    work()
    return Program(work, np.asarray(states.totals["loss"]))


def _begin(case: train.Case, streams: int) -> tuple[steps.Recipe, dict[str, jax.Array]]:
    """What is trained, and a batch for each stream, `[streams, N, ...]`."""
    keep_memory()
    tune_training_compiler()
    clips = train.random_clips(case, streams)
    clips["position"] = jnp.arange(streams * case.batch, dtype=jnp.uint32)
    return train.make_recipe(case), {
        name: values.reshape(streams, case.batch, *values.shape[1:]) for name, values in clips.items()
    }


def _state(recipe: steps.Recipe, batch: dict[str, jax.Array], seed: int) -> steps.TrainState:
    return steps.initial_state(recipe, seed, batch)
