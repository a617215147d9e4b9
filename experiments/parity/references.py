"""Compares our models with the reference outputs in a folder. `experiments.parity.__main__` describes the rules."""

import json
import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from experiments.parity import families, golden
from experiments.parity.table import Table
from mmcl_jax.models import losses
from mmcl_jax.pytorch.state_dicts import resolve_aliases, to_flax, to_torch
from mmcl_jax.runtime.backend import HASTY

BOUNDS = {"eval": 1e-4, "train": 1e-3}
# Names in MMCL's .npz -> our names; all other names are the same.
ALIASES = {"refined": "train_refined", "contrastive": "train_contrastive", "total_loss": "train_loss"}
CONTRASTIVE_BOUND = 1e-4


def check_folder(folder: pathlib.Path) -> int:
    """Judges every reference of a folder. Returns the exit status."""
    if not folder.is_dir():
        print(f"{folder}: no such folder; give the folder of the references (NAME.json, NAME.npz): FAIL")
        return 1
    paths = sorted(path for path in folder.glob("*") if path.suffix in (".json", ".npz"))
    table = Table(sorted({path.stem for path in paths}))
    for path in paths:
        if path.suffix == ".npz" and path.with_suffix(".json") in paths:
            continue  # judged together with its .json
        try:
            _check_file(path, table)
        except Exception as error:  # one bad file must not hide the results of the others
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
    if not isinstance(contents, dict):
        raise golden.GoldenError(f"{path.name} does not hold a JSON object")
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
    state_dict = golden.state_dict(reference)
    family_name, family = families.recognise(state_dict)
    known = {stored: ALIASES.get(stored, stored) for stored in expected if stored != "labels"}
    labels = expected.get("labels")
    inputs = family.inputs(reference)

    best = None
    models = family.models(path.stem, state_dict)
    for label, model in models.items():
        program = Program(family, model, state_dict, inputs, labels, frozenset(known.values()))
        values, gradients = program(inputs)
        errors = {
            stored: golden.relative_error(values[ours], expected[stored])
            for stored, ours in known.items()
            if ours in values
        }
        if best is None or sum(errors.values()) < sum(best[1].values()):
            best = label, errors, gradients, program
    label, errors, gradients, program = best
    if len(models) > 1:
        table.remark(path.stem, f"the name does not say which model; the nearest of {', '.join(models)} is {label}")
    for stored, error in errors.items():
        table.add(path.stem, stored, error, BOUNDS[known[stored].partition("_")[0]], program.parameters)
    if not errors:
        raise golden.GoldenError(f"{path.stem}.npz holds no value of {family_name} that can be compared")
    if "grad_norm" in reference and labels is None:
        raise golden.GoldenError(f"{path.stem}.npz holds no labels, which the gradients need")
    if "grad_norm" in reference:
        _check_gradients(path.stem, reference, gradients, inputs, program, table)
    rest = sorted({stored.partition("/")[0] for stored in known.keys() - errors.keys()})
    table.remark(path.stem, f"is {family_name}" + (f"; not compared: {', '.join(rest)}" if rest else ""))


def _check_gradients(name: str, reference: Mapping, gradients, inputs, program: "Program", table: Table) -> None:
    errors = golden.gradient_norm_errors(gradients, reference)
    what = f"gradients of {len(errors)}"
    if program.model.idle_gradients:
        table.add(name, what, max(errors.values()), None, program.parameters)
        table.remark(name, f"  gradients are not judged: {program.model.idle_gradients}")
        return
    beyond = sorted(key for key, error in errors.items() if error > golden.GRADIENT_TOLERANCE)
    if beyond:
        rounding = golden.measure_rounding(lambda moved: program(moved)[1], inputs, gradients)
        errors = golden.gradient_norm_errors(gradients, reference, rounding)
        for key in beyond:
            ours = np.linalg.norm(gradients[key]) if key in gradients else "none"
            table.remark(
                name,
                f"  gradient of {key}: norm {ours}, expected {reference['grad_norm'].get(key, 'none')}; "
                f"one unit in the last place of the inputs moves ours by {rounding.get(key, 0.0):.1e}",
            )
    table.add(name, what, max(errors.values()), golden.GRADIENT_TOLERANCE, program.parameters)


class Program:
    """A model with its weights, in evaluation and in training; compiled once.

    Attributes:
      model: the given model.
      parameters: the number of parameters.
    """

    def __init__(
        self,
        family: families.Family,
        model: families.Model,
        state_dict: Mapping[str, np.ndarray],
        inputs: tuple[np.ndarray, ...],
        labels: np.ndarray | None,
        wanted: frozenset[str],
    ):
        """Converts the weights.

        Args:
          family, model: the recognized model.
          state_dict: the model's weights by PyTorch name.
          inputs: inputs of the module; only their shapes matter.
          labels: int `[N]`; None: no loss and no gradients.
          wanted: names of the values to compute, `eval_NAME` and `train_NAME`.
        """
        self.model = model
        # Values are generated by name, so two names of one tensor have two values; the later one counts.
        state_dict = resolve_aliases(state_dict, model.entries)
        self._variables = to_flax(state_dict, model.entries, families.template(model, inputs))
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self._variables["params"]))

        def compute(variables, inputs):
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

        self._compute = jax.jit(compute, compiler_options=HASTY)

    def __call__(self, inputs: tuple[np.ndarray, ...]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Returns the wanted values that the family has, and the gradients by PyTorch name."""
        values, gradients = jax.device_get(self._compute(self._variables, inputs))
        return values, {} if gradients is None else to_torch({"params": gradients}, self.model.entries)
