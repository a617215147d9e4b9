"""What a benchmark runs on, and what that can do at most: rates of a large matrix product and of a copy, measured.

The caller's process never touches a device: `measured` asks in another, whose memory is free again afterwards.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import pathlib
import platform
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp

_PACKAGES = ("jax", "jaxlib", "torch", "onnxruntime", "numpy")
_SIZES = {"cpu": 2048, "gpu": 8192}  # side of the square matrices
_COPIED_BYTES = {"cpu": 2**28, "gpu": 2**31}
_REPEATS = 7


# How a GPU multiplies: type of the operands, and JAX's precision. By default it rounds float32 to TF32, 10 bits.
_GPU_PRODUCTS = {"float32": (jnp.float32, "highest"), "TF32": (jnp.float32, None), "bfloat16": (jnp.bfloat16, None)}


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """`products`: FLOP/s (two a multiply-add) of a square matrix product; `copy`: bytes/s read and written.

    Products of a CPU: 'float32'; of a GPU: 'float32', 'TF32' (float32 whose operands are rounded) and 'bfloat16'.
    """

    products: dict[str, float]
    copy: float


@dataclasses.dataclass(frozen=True)
class Machine:
    """Hardware and versions as a table's caption says them; 'cpu' or 'gpu', number of devices, and what they can do."""

    description: dict[str, str]
    backend: str
    device_count: int
    ceilings: Ceilings


def measured(function: Callable[[], Any]) -> Any:
    """What a function of this module returns in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function).result()


def survey() -> Machine:
    """Everything about the machine that the contenders will run on."""
    return Machine(describe(), jax.default_backend(), jax.device_count(), measure_ceilings())


def describe() -> dict[str, str]:
    """Hardware, versions and threads, as a table's caption says them."""
    versions = {name: _version(name) for name in _PACKAGES}
    return {
        "device": device_name(),
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
        **{name: version for name, version in versions.items() if version},
    }


def device_name() -> str:
    """The first device's name: of a CPU, the processor's."""
    if jax.default_backend() != "cpu":
        return f"{jax.local_device_count()} x {jax.devices()[0].device_kind}"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure_ceilings() -> Ceilings:
    """Measures them on the first device, in jax; the best of some repetitions."""
    kind = "cpu" if jax.default_backend() == "cpu" else "gpu"
    side = _SIZES[kind]
    products = {}
    for name, (dtype, precision) in ({"float32": (jnp.float32, None)} if kind == "cpu" else _GPU_PRODUCTS).items():
        matrix, product = jnp.ones((side, side), dtype), jax.jit(functools.partial(jnp.matmul, precision=precision))
        products[name] = 2 * side**3 / _best_seconds(product, matrix, matrix)
    block = jnp.ones(_COPIED_BYTES[kind] // 4, jnp.float32)
    return Ceilings(products, 2 * block.nbytes / _best_seconds(jax.jit(lambda x: x + 1), block))


def _best_seconds(function: Callable, *arguments: jax.Array) -> float:
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
