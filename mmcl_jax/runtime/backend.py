"""Settings of the XLA compiler and of memory, made before the first device is used, and a program cache."""

import contextlib
import ctypes
import importlib
import importlib.util
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

# XLA's YNNPACK kernels are good at matrix products and slow at reductions: use them only for the products.
_CPU_FLAG, _CPU_VALUE = "--xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_DOT"
# LLVM unrolls loops for a third of the time that a training step takes to compile, and the step is no faster for it.
_LOOPS_FLAG, _LOOPS_VALUE = "--xla_backend_extra_options", "xla_cpu_disable_loop_unrolling"
# XLA of jaxlib 0.11.2 ends the process while it tiles the training step's products for Triton ("Check failed:
# subdim_size_accumulator == dim_size" in triton_tiling_propagation.cc, seen on an H100). cuBLAS computes them instead.
_GPU_FLAG, _GPU_VALUE = "--xla_gpu_enable_triton_gemm", "false"
# Plugins through which JAX reaches other devices than CPUs.
_ACCELERATORS = ("jax_plugins", "libtpu")
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8

# For programs that run once or a few times on little: optimizing them would take four times as long to compile.
HASTY = {"xla_backend_optimization_level": 0}


def tune_compiler() -> None:
    """Sets XLA flags: on a CPU for a fast training step, on a GPU for one that compiles at all (`tune_gpu_compiler`).

    Call it before the first device is used. A flag that the user set in XLA_FLAGS stays as it is.
    """
    _add_flag(_CPU_FLAG, _CPU_VALUE)
    tune_gpu_compiler()


def tune_training_compiler() -> None:
    """`tune_compiler`, and CPU programs whose loops LLVM does not unroll, which compile faster.

    For programs that train. Prediction, which compiles in a few seconds, may be faster with unrolled loops.
    """
    tune_compiler()
    compile_loops_fast()


def compile_loops_fast() -> None:
    """Stops LLVM from unrolling loops if JAX may use only CPUs, unless the user set the same flag."""
    if _cpu_only():
        _add_flag(_LOOPS_FLAG, _LOOPS_VALUE)


def tune_gpu_compiler() -> None:
    """Stops XLA from compiling products with Triton if JAX may use a GPU, unless the user set the same flag.

    If JAX can use only CPUs, nothing changes: a program that was compiled with other flags is not found again.
    """
    if not _cpu_only() and importlib.util.find_spec("jax_plugins"):
        _add_flag(_GPU_FLAG, _GPU_VALUE)


def gpu_compiler_options() -> dict[str, bool]:
    """The setting of `tune_gpu_compiler` as options of `jax.jit`, for a process that has used a GPU already."""
    if jax.default_backend() != "gpu" or _GPU_FLAG in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {_GPU_FLAG.removeprefix("--"): False}


def _add_flag(name: str, value: str) -> None:
    flags = os.environ.get("XLA_FLAGS", "")
    if name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {name}={value}".strip()


def keep_compiled_programs(folder: pathlib.Path | None) -> None:
    """Keeps programs that took XLA more than a second to compile in `folder` for later runs; None: keeps none.

    Any number of runs may share the folder, and anything in it may be removed at any time. Programs in it are run
    unchecked: nobody else should be able to write there. A damaged one is compiled again, with a warning.
    """
    from absl import logging  # benchmarks use this file where there is none

    if folder is not None and jax.default_backend() == "cpu" and jax.process_count() > 1:
        # Of several processes on CPUs, only the first would find its programs. And a program read from the cache has
        # its collective operations in another order than the same program newly compiled in another process.
        logging.info("several processes on CPUs: programs are compiled anew at every start")
        folder = None
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            logging.warning("no place for compiled programs (%s): the next start will compile again", error)
            folder = None
    jax.config.update("jax_enable_compilation_cache", folder is not None)
    jax.config.update("jax_compilation_cache_dir", None if folder is None else str(folder))


def kept_programs() -> str:
    """Where compiled programs are kept, in words."""
    settings: Any = jax.config  # whose attributes type checkers do not know
    folder = settings.jax_compilation_cache_dir if settings.jax_enable_compilation_cache else None
    return f"kept for the next start in {folder}" if folder else "not kept for the next start"


def compilation_line(what: str, time: str) -> str:
    """A line that says that `what` is compiled now, in about so much `time` for a published model on two cores."""
    return f"compiling {what}; about {time} for a published model on two cores; {kept_programs()}"


@contextlib.contextmanager
def quiet_compiler() -> Iterator[None]:
    """Keeps XLA from asking for a bug report when it compiles for more than two minutes. Errors are raised as ever."""
    utils: Any = importlib.import_module("jaxlib.utils")  # a module that type checkers do not see
    utils.absl_set_min_log_level(3)
    try:
        yield
    finally:
        utils.absl_set_min_log_level(int(os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1")))  # JAX's own default is 1


def keep_memory() -> None:
    """Makes glibc keep freed memory if the program runs on glibc and only on CPUs. Call it before threads start.

    XLA allocates a step's intermediate results, 2 GB in CTR-GCN's at a batch of 16, anew in each step. glibc returns
    them to the system after each, and half a million page faults bring them back: a sixth of the step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and _cpu_only():
        mallopt(_M_ARENA_MAX, 1)  # a thread's own arena would map large blocks in spite of the next line
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def _cpu_only() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS")
    return platforms == "cpu" if platforms else not any(importlib.util.find_spec(name) for name in _ACCELERATORS)
