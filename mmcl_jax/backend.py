"""Settings of the XLA compiler and of memory on a CPU, made before the first device is used."""

import ctypes
import importlib.util
import os

# XLA's YNNPACK kernels are good at matrix products and slow at reductions: use them for the former alone.
_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
# Plugins through which JAX reaches other devices than CPUs.
_ACCELERATORS = ("jax_plugins", "libtpu")
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def tune_cpu_compiler() -> None:
    """Adds to XLA_FLAGS what makes training faster on a CPU, unless the user set the same flag. No effect elsewhere."""
    flags = os.environ.get("XLA_FLAGS", "")
    if _FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}=LIBRARY_FUSION_TYPE_DOT".strip()


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
