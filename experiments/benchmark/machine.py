"""What a benchmark runs on, and what that can do at most: rates of a large matrix product and of a copy, measured.

The caller's process never touches a device: `measured` asks in another, so that its memory is free again after.
"""

import concurrent.futures
import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """`products`: FLOP/s (two a multiply-add) of a square matrix product by type; `copy`: bytes/s read and written."""

    products: dict[str, float]
    copy: float


def measured(function: Callable[[], Any]) -> Any:
    """What a function of this module returns in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function).result()


def backend() -> str:
    """'cpu' or 'gpu', what the contenders will run on."""
    return jax.default_backend()


def device_count() -> int:
    """How many devices there are."""
    return jax.device_count()


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
    for dtype in (jnp.float32,) if kind == "cpu" else (jnp.float32, jnp.bfloat16):
        matrix = jnp.ones((side, side), dtype)
        products[jnp.dtype(dtype).name] = 2 * side**3 / _best_seconds(jax.jit(jnp.matmul), matrix, matrix)
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
