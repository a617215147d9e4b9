"""Are our models equal to PyTorch's? Prints a table; the exit status is 1 if anything exceeds its bound.

    python -m experiments.parity DIR                 against the reference outputs ("goldens") in a folder
    python -m experiments.parity --torch [--seed=0]  against experiments/pytorch_baselines, on random weights and clips

DIR holds, for each model, `NAME.json` (the input's name and shape, a seed, each PyTorch key with its shape, the norms of
the gradients) and `NAME.npz` (what the reference computed); `experiments/golden.py` describes the format. Weights and
inputs are drawn here, by name, shape and seed; nothing in DIR is executed, a `weights.py` in it is not read. Which model
a file belongs to is told by its keys, never by its name; number of classes, joints, bodies and the width by its shapes.

Errors are relative: the norm of the difference over the norm of the reference, in float64. Bounds: logits in evaluation
1e-4; logits and losses in training 1e-3; gradients 0.01, the largest over the parameters of |a - b| / (b + 1e-4 max of
all norms), where a and b are the norms of a parameter's gradient (a bias in front of a batch norm excepted: see
`golden.gradient_norm_errors`). Everything that a file holds and that is not compared is named. A file that cannot be
judged (broken, incomplete, of an unknown model) counts as a failure, and so does a folder without any model. References
that are no models (transforms, preprocessing, splits) are listed; `make test` compares those.

`--torch` trains as well; what it compares and with which bounds is in `experiments/torch_parity.py`. It needs torch.
"""

import argparse
import functools
import json
import math
import pathlib
import sys
from collections.abc import Mapping

import jax
import numpy as np

from experiments import families, golden
from mmcl_jax import losses
from mmcl_jax.torch_weights import to_flax, to_torch

BOUNDS = {"eval": 1e-4, "train": 1e-3}
# Names in MMCL's .npz -> ours; the others are called alike.
ALIASES = {"refined": "train_refined", "contrastive": "train_contrastive", "total_loss": "train_loss"}
CONTRASTIVE_BOUND = 1e-4


class Table:
    """Prints a row as soon as it is known, and counts.

    Attributes:
      compared: rows with a bound.
      failed: rows beyond it, and files that could not be judged.
    """

    def __init__(self, names: list[str]):
        self._width = max(map(len, names), default=5)
        self.compared = self.failed = 0
        self._print("model", "compared", "error", "bound", "parameters", "")

    def add(self, model: str, compared: str, error: float, bound: float | None, parameters: int) -> None:
        """One comparison; without a bound it is shown and not judged."""
        verdict = "not judged"
        if bound is not None:
            good = error <= bound  # NaN is not
            self.compared += 1
            self.failed += not good
            verdict = "ok" if good else "FAIL"
        self._print(model, compared, f"{error:.1e}", f"{bound:.0e}" if bound else "-", f"{parameters:,}", verdict)

    def cannot_judge(self, model: str, reason: str) -> None:
        self.failed += 1
        print(f"{model:<{self._width}}  cannot be judged: {reason}  FAIL", flush=True)

    def remark(self, model: str, text: str) -> None:
        print(f"{model:<{self._width}}  {text}", flush=True)

    def _print(self, model, compared, error, bound, parameters, verdict):
        line = f"{model:<{self._width}}  {compared:<44}  {error:>8}  {bound:>6}  {parameters:>11}  {verdict}"
        print(line.rstrip(), flush=True)

    def finish(self) -> int:
        """Prints the sum; returns the exit status."""
        if not self.compared:
            print("nothing was compared: FAIL")
            return 1
        print(f"{self.compared} comparisons, " + (f"{self.failed} FAIL" if self.failed else "all within their bounds"))
        return int(self.failed > 0)


def check_folder(folder: pathlib.Path) -> int:
    """Judges every reference of a folder. Returns the exit status."""
    paths = sorted(path for path in folder.glob("*") if path.suffix in (".json", ".npz"))
    table = Table(sorted({path.stem for path in paths}))
    for path in paths:
        if path.suffix == ".npz" and path.with_suffix(".json") in paths:
            continue  # judged with its .json
        try:
            _check_file(path, table)
        except Exception as error:  # a file that nobody has seen must not hide the others' results
            table.cannot_judge(path.stem, f"{type(error).__name__}: {error}")
    return table.finish()


def _check_file(path: pathlib.Path, table: Table) -> None:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            if not {"eval_logits", "train_logits"} & set(arrays):
                table.remark(path.stem, "not a model: make test compares it")
                return
        raise golden.GoldenError(f"{path.with_suffix('.json').name} is missing")
    contents = json.loads(path.read_text())
    if "state_dict" in contents:
        _check_model(path, table)
    elif {"tau", "value"} <= contents.keys():
        _check_contrastive(path.stem, contents, table)
    elif path.with_suffix(".npz").exists() and "grad_norm" in contents:
        raise golden.GoldenError("no state_dict")
    else:
        table.remark(path.stem, "not a model: make test compares it")


def _check_contrastive(name: str, reference: Mapping, table: Table) -> None:
    for size, expected in reference["value"].items():
        clips, width = map(int, size.split("x"))
        a, b = (golden.inputs(f"con/{side}{clips}", (clips, width), reference.get("seed", 0)) for side in "ab")
        ours = losses.contrastive(a, b, temperature=reference["tau"])
        table.add(name, f"contrastive loss {size}", golden.relative_error(ours, expected), CONTRASTIVE_BOUND, 0)


def _check_model(path: pathlib.Path, table: Table) -> None:
    reference, expected = golden.read(path)
    shapes = {key: tuple(shape) for key, shape in reference["state_dict"].items()}
    family_name, family = families.recognise(shapes)
    known = {stored: ALIASES.get(stored, stored) for stored in expected if stored != "labels"}
    labels = expected.get("labels")
    inputs = family.inputs(reference)
    state_dict = golden.state_dict(reference)

    best = None
    models = family.models(path.stem, shapes)
    for label, model in models.items():
        values, gradients, parameters = run(family, model, state_dict, inputs, labels, frozenset(known.values()))
        errors = {
            stored: golden.relative_error(values[k], expected[stored]) for stored, k in known.items() if k in values
        }
        if best is None or sum(errors.values()) < sum(best[1].values()):
            best = label, errors, gradients, parameters
    label, errors, gradients, parameters = best
    if len(models) > 1:
        table.remark(path.stem, f"the name does not tell which; the nearest of {', '.join(models)} is {label}")
    for stored, error in errors.items():
        table.add(path.stem, stored, error, BOUNDS[known[stored].partition("_")[0]], parameters)
    if "grad_norm" in reference:
        norm_errors = golden.gradient_norm_errors(gradients, reference)
        worst = max(norm_errors, key=norm_errors.get)
        table.add(
            path.stem, f"gradients of {len(norm_errors)}", norm_errors[worst], golden.GRADIENT_TOLERANCE, parameters
        )
        if norm_errors[worst] > golden.GRADIENT_TOLERANCE:
            for line in golden.gradient_norm_mismatches(gradients, reference):
                table.remark(path.stem, f"  {line}")
    rest = sorted(set(known) - set(errors))
    if rest:
        table.remark(path.stem, f"{family_name}; not compared: {', '.join(rest)}")


def run(
    family: families.Family,
    model: families.Model,
    state_dict: Mapping[str, np.ndarray],
    inputs: tuple[np.ndarray, ...],
    labels: np.ndarray | None,
    wanted: frozenset[str],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """Runs a model in evaluation and in training, in one compilation.

    Args:
      family, model: as recognised.
      state_dict: the model's weights by PyTorch name.
      inputs: of the module.
      labels: int `[N]`, or None: no loss, no gradients.
      wanted: the names of values to return; others are not computed.

    Returns:
      The wanted values that the family has, called `eval_NAME` and `train_NAME`; gradients by PyTorch name; the
      number of parameters.
    """
    shapes = jax.eval_shape(functools.partial(model.module.init, train=False), jax.random.key(0), *inputs)
    variables = to_flax(state_dict, model.entries, shapes)

    @jax.jit
    def compute(variables, inputs, labels):
        def training(params):
            output, _ = model.module.apply(
                {**variables, "params": params}, *inputs, train=True, mutable=["batch_stats"]
            )
            values = family.values(output, labels)
            return values.get("loss"), values

        values = family.values(model.module.apply(variables, *inputs, train=False), labels)
        values = {f"eval_{name}": value for name, value in values.items()}
        gradients = None
        if labels is None:
            _, trained = training(variables["params"])
        else:
            gradients, trained = jax.grad(training, has_aux=True)(variables["params"])
        values.update({f"train_{name}": value for name, value in trained.items()})
        return {name: value for name, value in values.items() if name in wanted}, gradients

    values, gradients = jax.device_get(compute(variables, inputs, labels))
    by_name = {} if gradients is None else to_torch({"params": gradients}, model.entries)
    return values, by_name, sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, metavar="DIR", help="folder of reference outputs")
    parser.add_argument("--torch", action="store_true", help="compare with experiments/pytorch_baselines")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and clips of --torch")
    arguments = parser.parse_args()
    if (arguments.folder is None) == (not arguments.torch):
        parser.error("name a folder of reference outputs, or --torch, one of the two")
    with jax.default_matmul_precision("highest"):  # on GPUs, float32 as exact as a CPU's
        if arguments.torch:
            from experiments import torch_parity

            sys.exit(torch_parity.check(arguments.seed))
        sys.exit(check_folder(arguments.folder))


if __name__ == "__main__":
    main()
