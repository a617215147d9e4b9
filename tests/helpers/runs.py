"""Tiny runs: a config that trains in seconds, the command in a process of its own, and reading what a run left."""

import contextlib
import csv
import itertools
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Sequence

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from configs import demo
from data_prep import synthetic
from data_prep.scenes import actions
from mmcl_jax.data import records

ROOT = pathlib.Path(__file__).parents[2]
# What differs from configs/demo.py: 24 training clips, each four times an epoch, are 12 steps of 8 clips.
TINY = {
    "data.window": 16,
    "data.repeats": 4,
    "data.threads": 2,
    "model.base_channels": 4,
    "batch_size": 8,
    "eval_batch_size": 8,
    "num_epochs": 2,
    "warmup_epochs": 1,
    "eval_every_epochs": 1,
}
STEPS_PER_EPOCH = 12
STEPS = 24
UNOPTIMISED = "--xla_backend_optimization_level=0"  # programs compile faster than they would run fast
PATIENCE = 3600  # seconds after which a process hangs; no test takes a noticeable part of it
TIMES = ("seconds", "clips_per_second", "first_step_seconds")  # columns of metrics.csv that differ from run to run
_PORTS = itertools.count()


class MeanColour(nn.Module):
    """An image encoder that compiles in no time."""

    group_size: int | None = None

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(8)(images.mean(axis=(1, 2)))


def write_tiny_records(folder: pathlib.Path) -> None:
    """Writes 36 synthetic clips: every action by subjects 1 and 2, who train, and 4, who tests."""
    fields = [
        synthetic.ClipFields(action, subject, camera=2, replication=1)
        for action in range(1, len(actions.ACTIONS) + 1)
        for subject in (1, 2, 4)
    ]
    clips = (synthetic.make_clip(0, clip_fields) for clip_fields in fields)
    records.write_records(folder, synthetic._INFO, clips, total=len(fields))


def tiny_config(records: pathlib.Path, **changes) -> ml_collections.ConfigDict:
    """The demo's config, tiny; `changes` name keys with `__` for the dot: `loss__temperature=0.5`."""
    config = demo.get_config()
    config.update_from_flattened_dict({**TINY, "data.records": str(records), **_dotted(changes)})
    return config


def command(
    records: pathlib.Path,
    workdir: pathlib.Path,
    *more: str,
    mode: str = "train",
    program: str = "mmcl_jax.main",
    **changes,
) -> list[str]:
    """The command of a tiny run, as a user would type it; `program` may be `tests.helpers.shallow`."""
    given = {**TINY, "data.records": str(records), **_dotted(changes)}
    return [
        sys.executable,
        "-m",
        program,
        "--config=configs/demo.py",
        f"--workdir={workdir}",
        f"--mode={mode}",
        *overrides(given),
        *more,
    ]


def overrides(changes: dict) -> list[str]:
    """Flags that change a config, from keys with dots or `__`."""
    return [f"--config.{key}={value}" for key, value in _dotted(changes).items()]


def _dotted(changes: dict) -> dict:
    return {key.replace("__", "."): value for key, value in changes.items()}


def start(
    arguments: list[str], cache: pathlib.Path, log: pathlib.Path, devices: int = 1, hasty: bool = False
) -> subprocess.Popen:
    """Starts a process whose output goes to `log`. Processes share compiled programs in `cache`.

    If it is `hasty`, programs are not optimized: optimizing would take longer than it saves.
    """
    hurry = f" {UNOPTIMISED}" if hasty else ""
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}{hurry}",
    }
    if devices > 1:
        # Threads of the CPU client. With one a device, collectives that run at once can wait for each other forever.
        environment["NPROC"] = str(8 * devices)
        # A device that waits for the others ends the process after 40 s, which a busy machine may take.
        environment["XLA_FLAGS"] += f" --xla_cpu_collective_call_terminate_timeout_seconds={PATIENCE}"
    with log.open("a") as output:
        return subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)


def run(
    arguments: list[str], cache: pathlib.Path, log: pathlib.Path, devices: int = 1, hasty: bool = False
) -> tuple[int, str]:
    """Runs a process to its end; returns its exit status and what it printed."""
    already = log.stat().st_size if log.exists() else 0
    process = start(arguments, cache, log, devices, hasty)
    try:
        status = process.wait(timeout=PATIENCE)
    finally:
        process.kill()
    return status, log.read_bytes()[already:].decode()


def free_address() -> str:
    """host:port on this machine that nobody uses yet.

    The port is below those that systems give to programs that ask for any, and tests of another process begin to look
    elsewhere: nobody takes it before it is used.
    """
    for number in range(10_000):
        port = 20_000 + (97 * os.getpid() + next(_PORTS) + number) % 10_000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"
    raise OSError("no port of 10,000 is free")


def start_two(commands: Sequence[list[str]], cache: pathlib.Path, folder: pathlib.Path) -> list[subprocess.Popen]:
    """Starts two processes of one run, two devices each, on this machine; output goes to `folder`/log0 and log1."""
    address = free_address()
    processes = []
    for index, command in enumerate(commands):
        flags = [f"--coordinator_address={address}", f"--process_id={index}", "--num_processes=2"]
        processes.append(start([*command, *flags], cache, folder / f"log{index}", devices=2, hasty=True))
    return processes


def saved_steps(workdir: pathlib.Path) -> list[int]:
    """Steps of the complete checkpoints of a run."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def read_checkpoint(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint by its path, read without a model."""
    flat = {}
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])  # on any devices that wrote it
    for item in ("skeleton", "auxiliary", "training"):
        folder = (workdir / "checkpoints" / str(step) / item).absolute()
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.metadata(folder).item_metadata.tree
            target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), stored)
            tree = checkpointer.restore(folder, target)
        for path, leaf in jax.tree.flatten_with_path(tree)[0]:
            flat[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    return flat


def read_rows(workdir: pathlib.Path) -> list[dict[str, str]]:
    """Rows of metrics.csv, without the columns that tell times."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in read_rows_with_times(workdir)]


def read_rows_with_times(workdir: pathlib.Path) -> list[dict[str, str]]:
    """Rows of metrics.csv."""
    with (workdir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_scores(workdir: pathlib.Path, part: str = "test") -> dict[str, np.ndarray]:
    """Contents of a scores file."""
    with np.load(workdir / f"scores_{part}.npz", allow_pickle=False) as stored:
        return dict(stored)


def assert_same_arrays(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Asserts that two dicts of arrays are equal in every bit."""
    assert actual.keys() == expected.keys()
    differing = [key for key in expected if actual[key].tobytes() != expected[key].tobytes()]
    assert not differing, differing
