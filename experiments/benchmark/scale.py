"""The same global batch on one device, on more, and on two processes: clips per second of CTR-GCN's training step.

On a CPU the devices are virtual and share its cores: what is measured there is what dividing a batch costs, not what
devices add. On a machine with several GPUs they are all used, in powers of two, and the two processes have one each.
"""

import argparse
import os
import socket
import subprocess
import sys

import numpy as np

from experiments.benchmark.harness import Contender, Program, UnavailableError, alternate
from experiments.benchmark.report import Report
from mmcl_jax.runtime.options import model_width, positive

_FRAMES, _CLASSES = 300, 120  # of NTU RGB+D 120
_TOLERANCE = {"cpu": 1e-4, "gpu": 1e-2}  # of the first step's loss; GPUs round the operands of float32's products


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=positive, help="over all devices; default 16, on GPUs 200")
    parser.add_argument("--width", type=model_width, help="base_channels; default 16, on GPUs 64, the published width")
    parser.add_argument("--devices", type=positive, help="at most; default 4 virtual ones, or all GPUs")
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each contender")
    parser.add_argument("--turn-seconds", type=float, default=2.0, help="length of a turn")


def run(options: argparse.Namespace, report: Report) -> None:
    on_cpu = report.machine.backend == "cpu"
    most = options.devices or (4 if on_cpu else report.machine.device_count)
    batch, width = options.batch or (16 if on_cpu else 200), options.width or (16 if on_cpu else 64)
    shape = {"batch": batch, "width": width}
    counts = [count for count in (1, 2, 4, 8, 16) if count <= most and batch % count == 0]
    contenders = [Contender(_count(count), one_process, {"devices": count, **shape}) for count in counts]
    if most > 1:
        contenders.append(Contender("2 processes, 1 device each", first_of_two, shape))
    timings = alternate(
        contenders,
        rounds=options.rounds,
        turn_seconds=options.turn_seconds,
        tolerance=_TOLERANCE[report.machine.backend],
        ready_within=options.ready_within,
    )
    note = ", virtual devices of one CPU" if on_cpu else ""
    title = f"A training step of CTR-GCN, base_channels {width}, {batch} clips over all devices{note}"
    report.timings(title, timings, units=batch, unit="clip")


def _count(devices: int) -> str:
    return f"{devices} device{'s' if devices > 1 else ''}"


def one_process(devices: int, batch: int, width: int) -> Program:
    """The step on the first `devices` devices."""
    _divide_cpu(devices)
    import jax

    return _program(jax.devices()[:devices], batch, width)


def first_of_two(batch: int, width: int) -> Program:
    """The step of two processes; starts the other, which works along until this one ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    other = [sys.executable, "-m", "experiments.benchmark.scale", address, str(batch), str(width)]
    subprocess.Popen(other, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return _one_of_two(address, 0, batch, width)


def _one_of_two(address: str, index: int, batch: int, width: int) -> Program:
    _divide_cpu(1)
    os.environ["JAX_LOCAL_DEVICE_IDS"] = str(index)  # which GPU is whose; CPUs take no notice
    from mmcl_jax.runtime import distributed

    distributed.join(address, index, 2)
    import jax

    return _program(jax.devices(), batch, width)


def _divide_cpu(devices: int) -> None:
    """To be called before the first device is used; of no effect on GPUs."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    os.environ["NPROC"] = str(8 * devices)  # threads: collective operations must not wait for each other's


def _program(devices, batch_size: int, width: int) -> Program:
    try:
        from configs import ntu120
        from mmcl_jax.config import Config
    except ImportError as error:
        raise UnavailableError(f"{error.name} is missing: pip install .") from error
    import jax

    from mmcl_jax import steps
    from mmcl_jax.runtime import backend, distributed, sharding

    backend.tune_training_compiler()
    config = ntu120.get_config("xsub,joint,skeleton_only").unlock()
    config.model.base_channels = width
    config.model.batch_norm_group_size = None
    config = Config.of(config)
    recipe, batch = _recipe(config), _random_clips(batch_size)
    mesh = sharding.data_mesh(devices)
    state = sharding.replicate(steps.initial_state(recipe, config.seed, batch), mesh)
    local = batch_size // jax.process_count()
    own = {name: array[jax.process_index() * local :][:local] for name, array in batch.items()}
    placed = sharding.place_batch(own, mesh)
    step = distributed.compile_together(steps.compile_step(recipe, config.seed, mesh), state, placed)
    state = step(state, placed)
    first_loss = np.asarray(state.totals["loss"])

    def work() -> None:
        nonlocal state
        state = jax.block_until_ready(step(state, placed))

    return Program(work, first_loss[None], {"devices": len(devices), "processes": jax.process_count()})


def _recipe(config):
    from mmcl_jax import optim, steps
    from mmcl_jax.data.layouts import LAYOUTS
    from mmcl_jax.data.transforms import make_transform
    from mmcl_jax.models import BACKBONES
    from mmcl_jax.models.mmcl import MMCL
    from mmcl_jax.task import loss_options, transform_options

    layout = LAYOUTS["ntu"]
    return steps.Recipe(
        model=MMCL(BACKBONES[config.model.backbone](_CLASSES, layout, 3, config.model)),
        transform=make_transform(transform_options(config), layout, _FRAMES, True, coordinates=3),
        optimizer=optim.sgd(optim.stepwise_schedule(0.001, 1, (), 0.1, 1000), config.momentum, config.weight_decay),
        loss=loss_options(config),
    )


def _random_clips(batch_size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "skeleton": rng.standard_normal((batch_size, 2, _FRAMES, 25, 3), dtype=np.float32),
        "frames": np.full(batch_size, 100, np.int32),
        "bodies": np.full(batch_size, 2, np.int32),
        "label": rng.integers(_CLASSES, size=batch_size).astype(np.int32),
        "position": np.arange(batch_size, dtype=np.uint32),
    }


if __name__ == "__main__":
    program = _one_of_two(sys.argv[1], 1, int(sys.argv[2]), int(sys.argv[3]))
    while True:
        program.run()
