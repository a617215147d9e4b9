"""A program for tests: the command `mmcl_jax.main`, in whose training NumPy raises a ValueError.

python -m tests.helpers.internal_error --config=configs/demo.py --workdir=DIR
"""

import numpy as np
from absl import app


def broken(*_arguments, **_options) -> None:
    np.zeros(3).reshape(2)


if __name__ == "__main__":
    from mmcl_jax import main, train  # main defines flags: not when tests import this file

    train.train = broken
    app.run(main.main, flags_parser=main._parse_flags)
