"""A program for tests: the command `mmcl_jax.main`, whose training asks JAX for more memory than there is.

python -m tests.helpers.memory_full --config=configs/demo.py --workdir=DIR
"""

import jax
import jax.numpy as jnp
from absl import app


def ask_too_much(*_arguments, **_options) -> None:
    """Raises: JaxRuntimeError, as a step on a device that is too small does."""
    jax.block_until_ready(jax.jit(lambda: jnp.zeros(2**50))())


if __name__ == "__main__":
    from mmcl_jax import main, train  # main defines flags: not when tests import this file

    train.train = ask_too_much
    app.run(main.main, flags_parser=main._parse_flags)
