"""Settings of the XLA compiler and of memory on a CPU, made before the first device is used, and a program cache."""

import ctypes
import importlib.util
import os
import pathlib

import jax

# XLA's YNNPACK kernels are good at matrix products and slow at reductions: use them for the former alone.
_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
# Plugins through which JAX reaches other devices than CPUs.
_ACCELERATORS = ("jax_plugins", "libtpu")
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8

# For programs that run once or a few times on little: optimising them would take four times as long to compile.
HASTY = {"xla_backend_optimization_level": 0}


def tune_cpu_compiler() -> None:
    """Adds to XLA_FLAGS what makes training faster on a CPU, unless the user set the same flag. No effect elsewhere."""
    flags = os.environ.get("XLA_FLAGS", "")
    if _FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}=LIBRARY_FUSION_TYPE_DOT".strip()


def keep_compiled_programs(folder: pathlib.Path | None) -> None:
    """Keeps what takes XLA more than a second to compile in `folder`, where later runs find it; None: nowhere.

    Any number of runs may share the folder, and anything in it may be removed at any time. Programs in it are run
    unchecked: nobody else should be able to write there. A damaged one is compiled again, with a warning.
    """
    from absl import logging  # benchmarks use this file where there is none

    if folder is not None and jax.default_backend() == "cpu" and jax.process_count() > 1:
        # Of several processes on CPUs only the first would find its programs; and a program that was read has its
        # collective operations in another order than the same one newly compiled in the next process.
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


def keep_memory() -> None:
    """Makes glibc keep freed memory, where the program runs on glibc and on CPUs alone. Call it before threads start.

    XLA allocates a step's intermediate results, 2 GB in CTR-GCN's at a batch of 16, anew in each step. glibc returns
    them to the system after each, and half a million page faults bring them back: a sixth of the step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and _cpu_alone():
        mallopt(_M_ARENA_MAX, 1)  # a thread's own arena maps what is large whatever the next line says
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def _cpu_alone() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS")
    return platforms == "cpu" if platforms else not any(importlib.util.find_spec(name) for name in _ACCELERATORS)
