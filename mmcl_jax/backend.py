"""Settings of the XLA compiler: made before the first device is used, and where its programs are kept."""

import os
import pathlib

import jax
from absl import logging

# XLA's YNNPACK kernels are good at matrix products and slow at reductions: use them for the former alone.
_FLAG = "--xla_cpu_experimental_ynn_fusion_type"


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
