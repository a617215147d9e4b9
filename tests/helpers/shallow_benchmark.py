"""Benchmarks of shallow models, which compile in no time: for tests of what surrounds a benchmark.

    python -m tests.helpers.shallow_benchmark {train,infer,...} [OPTION ...]

is `experiments.benchmark` with such models, ours and PyTorch's. Contenders' processes import this file too.
"""

import functools
import importlib.util

from experiments.benchmark import __main__ as command
from experiments.benchmark import infer, train
from mmcl_jax.models import inception
from tests.helpers import shallow

STAGES = ((1, 1), (2, 2))


def make_shallow() -> None:
    """Graph convolutional networks of two blocks on 16 frames; Inception-v3 of its stem and one block."""
    for name in ("CTRGCN", "ctrgcn_entries", "mmcl_entries"):
        setattr(train, name, functools.partial(getattr(train, name), stages=STAGES))
    for name, measured in infer.MEASURED.items():
        shallower = {key: functools.partial(getattr(measured, key), stages=STAGES) for key in ("module", "entries")}
        infer.MEASURED[name] = measured._replace(**shallower)
    shallow.make_shallow(stages=STAGES)  # which our ONNX file is made of
    if importlib.util.find_spec("torch") is not None:
        from experiments.pytorch_baselines import gcn, infogcn

        for baselines in (gcn, infogcn):
            baselines.WIDTHS, baselines.STRIDES = (1, 2), (1, 2)
    for name in [name for name in inception.BLOCKS if name != "Mixed_5b"]:
        del inception.BLOCKS[name]
    train.WINDOW = 16


if __name__ in ("__main__", "__mp_main__"):
    make_shallow()
if __name__ == "__main__":
    command.main()
