"""Backbones of three blocks, for tests of what surrounds a backbone: a third of the time to trace and to compile.

    python -m tests.helpers.shallow --config=configs/demo.py --workdir=DIR

is the command, `mmcl_jax.main`, with such backbones.
"""

from collections.abc import Callable
from typing import Any

from mmcl_jax.models import blocks, infogcn


def make_shallow(set_attribute: Callable[[Any, str, Any], None] = setattr) -> None:
    """Makes the backbones of one block of each kind: the first, one that keeps its input's shape, one that does not."""
    for module in (blocks, infogcn):
        set_attribute(module, "WIDTHS", (1, 1, 2))
        set_attribute(module, "STRIDES", (1, 1, 2))


if __name__ == "__main__":
    from absl import app

    from mmcl_jax import main  # which defines flags: not where tests import this file

    make_shallow()
    app.run(main.main, flags_parser=main._parse_flags)
