"""Writes `tests/golden`, the compact copy of the reference outputs, from a folder of whole ones.

    python -m tests.helpers.make_golden DIR

`tests/golden/README.md` says what is left out. Only references of random inputs are copied: what derives from a data
set stays where it is.
"""

import argparse
import json
import pathlib

import numpy as np

from tests.helpers.golden import COMPACT, TRANSFORMED_FRAMES

DIGITS = 7  # of gradient norms, which are compared to within 1 %
# The names of the format's weights (`experiments.parity.golden.fill`), with a shape for each of its rules.
FILLED = {
    "l1.gcn1.PA": (3, 5, 5),
    "alpha": (1,),
    "bn.running_var": (7,),
    "bn.running_mean": (7,),
    "bn.num_batches_tracked": (),
    "bn.weight": (7,),
    "fc.weight": (4, 3),
    "conv.weight": (4, 3, 5, 1),
    "fc.bias": (4,),
    "PosMatrix": (9,),
    "pos_embedding": (1, 5, 4),
}


def write_model(source: pathlib.Path) -> None:
    """Copies `NAME.json` and `NAME.npz` of a model without the arrays of its layers, which nothing compares."""
    reference = json.loads(source.read_text())
    if "grad_norm" in reference:
        reference["grad_norm"] = {key: float(f"{norm:.{DIGITS}g}") for key, norm in reference["grad_norm"].items()}
    lines = (f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in reference.items())
    (COMPACT / source.name).write_text("{\n" + ",\n".join(lines) + "\n}\n")
    with np.load(source.with_suffix(".npz")) as arrays:
        kept = {key: value for key, value in arrays.items() if not key.startswith("eval_layer/")}
    np.savez_compressed(COMPACT / f"{source.stem}.npz", **kept)


def write_transforms(source: pathlib.Path) -> None:
    """Copies the clips of `source`, `[C, T, V, M]`, at `TRANSFORMED_FRAMES`; other arrays whole."""
    with np.load(source) as arrays:
        kept = {key: value[:, TRANSFORMED_FRAMES] if value.ndim == 4 else value for key, value in arrays.items()}
    np.savez_compressed(COMPACT / source.name, **kept)


def write_weights(source: pathlib.Path) -> None:
    """Runs the `weights.py` of the references; keeps what its two functions return for a few names and two seeds."""
    functions = {}
    exec(source.read_text(), functions)
    kept = {f"{seed}/{key}": functions["fill"](key, shape, seed) for key, shape in FILLED.items() for seed in (0, 5)}
    np.savez_compressed(COMPACT / "weights.npz", **kept, **{"5/input": functions["inputs"]("x", (3, 4), 5)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, metavar="DIR", help="folder of whole reference outputs")
    folder = parser.parse_args().folder
    COMPACT.mkdir(exist_ok=True)
    for path in sorted(folder.glob("*.json")):
        if "state_dict" in json.loads(path.read_text()):
            write_model(path)
    (COMPACT / "contrastive.json").write_text((folder / "contrastive.json").read_text().rstrip() + "\n")
    for name in ("transforms_ntu", "transforms_ntu_train"):
        write_transforms(folder / f"{name}.npz")
    write_weights(folder / "weights.py")


if __name__ == "__main__":
    main()
