"""Backbones of three blocks, for tests of what surrounds a backbone: a third of the time to trace and to compile.

    python -m tests.helpers.shallow --config=configs/demo.py --workdir=DIR

is the command, `mmcl_jax.main`, with such backbones.
"""

import operator
from collections.abc import Callable
from typing import Any

from mmcl_jax.models import BACKBONES

# One block of each kind: the first, one that keeps its input's shape, one that does not.
STAGES = ((1, 1), (1, 1), (2, 2))


def make_shallow(
    set_item: Callable[[dict, str, Any], None] = operator.setitem, stages: tuple[tuple[int, int], ...] = STAGES
) -> None:
    """Replaces the published backbones in `BACKBONES` by those of fewer blocks."""
    for name, make in list(BACKBONES.items()):
        set_item(BACKBONES, name, lambda *args, make=make: make(*args).clone(stages=stages))


if __name__ == "__main__":
    from absl import app

    from mmcl_jax import main  # which defines flags: not where tests import this file

    make_shallow()
    app.run(main.main, flags_parser=main._parse_flags)
