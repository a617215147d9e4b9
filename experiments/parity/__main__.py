"""Are our models equal to PyTorch's? Prints a table; the exit status is 1 if anything exceeds its bound.

    python -m experiments.parity DIR                 against the reference outputs ("goldens") in a folder
    python -m experiments.parity --torch [--seed=0]  against experiments/pytorch_baselines, on random weights and clips

DIR holds, for each model, `NAME.json` (the input's name and shape, a seed, each PyTorch key with its shape, the norms
of the gradients) and `NAME.npz` (what the reference computed); `experiments/parity/golden.py` describes the format.
Weights and inputs are drawn here, by name, shape and seed; nothing in DIR is executed, a `weights.py` in it is not
read. Which model a file belongs to is told by its keys, never by its name; classes, joints, bodies and the width by its
shapes.

Errors are relative: the norm of the difference over the norm of the reference, in float64. Bounds: logits in evaluation
1e-4; logits and losses in training 1e-3; gradients 0.01, the largest over the parameters of |a - b| / (b + 1e-4 max of
all norms), where a and b are the norms of a parameter's gradient (a bias in front of a batch norm excepted: see
`golden.gradient_norm_errors`).

A ReLU's input within rounding of zero goes one way here and the other way there, and gradients that nearly cancel (the
scalars `alpha` of CTR-GCN) then move by one or two percent, in either program. Where a gradient exceeds the bound, ours
is therefore computed again from inputs moved by one unit in the last place, and as much of the difference as that
moves ours is excused, up to 5 % of the norm. Every such parameter is printed. So is a gradient that is nothing but
rounding, one that moves by a quarter, as long as it is below 1e-5 of the largest.

What a file holds and is not compared is named. A file that cannot be judged (broken, incomplete, of an unknown model)
counts as a failure, and so does a folder without any model. References that are no models (transforms, preprocessing,
splits) are listed; `make test` compares those.

`--torch` trains as well; what it compares and with which bounds is in `experiments/parity/baselines.py`. It needs
torch.
"""

import argparse
import pathlib
import sys

import jax

from experiments.parity import references
from mmcl_jax.runtime.backend import tune_gpu_compiler
from mmcl_jax.runtime.errors import plain_errors


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.parity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=pathlib.Path, metavar="DIR", help="folder of reference outputs")
    parser.add_argument("--torch", action="store_true", help="compare with experiments/pytorch_baselines")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and clips of --torch")
    arguments = parser.parse_args()
    if (arguments.folder is None) == (not arguments.torch):
        parser.error("name a folder of reference outputs, or --torch, one of the two")
    tune_gpu_compiler()
    with plain_errors("interrupted"), jax.default_matmul_precision("highest"):  # on GPUs, float32 as exact as a CPU's
        if arguments.torch:
            from experiments.parity import baselines  # which needs torch

            sys.exit(baselines.check(arguments.seed))
        sys.exit(references.check_folder(arguments.folder))


if __name__ == "__main__":
    main()
