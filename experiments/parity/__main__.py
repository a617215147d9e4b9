"""Checks that our models equal PyTorch's. Prints a table; the exit status is 1 if any error exceeds its bound.

    python -m experiments.parity DIR                 compares with the reference outputs ("goldens") in a folder
    python -m experiments.parity --torch [--seed=0]  compares with experiments/pytorch_baselines, on random weights

DIR has, for each model, `NAME.json` (name and shape of the input, a seed, every PyTorch key with its shape, the norms
of the gradients) and `NAME.npz` (the reference's outputs); `experiments/parity/golden.py` describes the format. Weights
and inputs are generated from name, shape and seed. Nothing in DIR is executed; a `weights.py` in it is not read. The
keys of a file, never its name, tell which model it belongs to; the shapes tell classes, joints, bodies and width.

Errors are relative: the norm of the difference divided by the norm of the reference, in float64. The bounds are 1e-4
for logits in evaluation, and 1e-3 for logits and losses in training. For gradients the bound is 0.01 on the largest
value over the parameters of |a - b| / (b + 1e-4 max of all norms), where a and b are the norms of a parameter's
gradient. A bias in front of a batch norm is an exception: see `golden.gradient_norm_errors`.

If the input of a ReLU is within rounding of zero, the two programs may decide it differently. Gradients that nearly
cancel (the scalars `alpha` of CTR-GCN) then move by one or two percent in either program. So if a gradient exceeds the
bound, ours is computed again from inputs moved by one unit in the last place. The amount by which our gradient moves is
excused, up to 5 % of the norm, and every such parameter is printed. A gradient that moves by a quarter is only rounding
noise, and is accepted if it is below 1e-5 of the largest.

The table names values in a file that are not compared. A file that cannot be judged (broken, incomplete, or of an
unknown model) counts as a failure, and so does a folder without any model. References that are not models (transforms,
preprocessing, splits) are listed; `make test` compares them.

`--torch` also trains; `experiments/parity/baselines.py` describes what it compares, and the bounds. It needs torch.
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
    parser.add_argument(
        "folder", nargs="?", type=pathlib.Path, metavar="DIR", help="the folder of the reference outputs"
    )
    parser.add_argument("--torch", action="store_true", help="compare with experiments/pytorch_baselines")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and clips of --torch")
    arguments = parser.parse_args()
    if (arguments.folder is None) == (not arguments.torch):
        parser.error("give either a folder of reference outputs or --torch")
    tune_gpu_compiler()
    with plain_errors("interrupted"), jax.default_matmul_precision("highest"):  # exact float32 on GPUs
        if arguments.torch:
            from experiments.parity import baselines  # needs torch

            sys.exit(baselines.check(arguments.seed))
        sys.exit(references.check_folder(arguments.folder))


if __name__ == "__main__":
    main()
