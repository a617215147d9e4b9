"""The matrices that a run learned: shared topologies of its graph convolutions, and the FRM's refinement matrices."""

import re

import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from experiments.report.runs import Run
from mmcl_jax import checkpoints
from mmcl_jax.config import get_config
from mmcl_jax.data.layouts import Layout
from mmcl_jax.models import BACKBONES, count_classes
from mmcl_jax.models.mmcl import BACKBONE

_TOPOLOGIES = ("PA", "shared_topology")


def matrices(run: Run, layout: Layout | None, coordinates: int) -> dict:
    """The learned matrices of the newest checkpoint, and their initial values.

    Args:
      run: a run with checkpoints.
      layout: layout of its records; None: unknown, and then so are the initial values of CTR-GCN and HD-GCN.
      coordinates: number of coordinates of a joint.

    Raises: CheckpointError.
    """
    step, variables = checkpoints.read_variables(run.workdir)
    params = variables["params"][BACKBONE]
    flat = flatten_dict(params)
    blocks = sorted((path for path in flat if path[-1] in _TOPOLOGIES), key=_block_number)
    return {
        "step": int(step),
        "topologies": _topologies(flat, blocks, _initial(run, params, layout, coordinates)) if blocks else None,
        "refinement": _refinement(variables["params"].get("refinement")),
    }


def _block_number(path: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", "/".join(path)))


def _topologies(flat: dict, blocks: list[tuple[str, ...]], initial: np.ndarray | None) -> dict:
    shape = np.shape(flat[blocks[0]])
    if blocks[0][-1] == "shared_topology":
        initial = np.broadcast_to(np.eye(shape[-1]), shape)
    if initial is not None and initial.shape != shape:
        initial = None
    kinds = ("layer", "subset") if len(shape) == 4 else ("head" if blocks[0][-1] == "shared_topology" else "subset",)
    slices = [
        ", ".join(f"{kind} {number + 1}" for kind, number in zip(kinds, place, strict=True))
        for place in np.ndindex(shape[:-2])
    ]
    listed = []
    for path in blocks:
        alpha = flat.get((*path[:-1], "alpha"))
        listed.append(
            {
                "name": f"block {_block_number(path)[0] + 1}",
                "alpha": None if alpha is None else round(float(np.ravel(alpha)[0]), 5),
                "learned": _lists(flat[path]),
            }
        )
    return {"slices": slices, "initial": None if initial is None else _lists(initial), "blocks": listed}


def _initial(run: Run, params: dict, layout: Layout | None, coordinates: int) -> np.ndarray | None:
    """The initial value of the backbone's `PA`. A run older than some config keys uses their defaults."""
    if layout is None:
        return None
    options = get_config().model
    try:
        for key, value in run.part("model").items():
            if key in options:
                options[key] = value
        return getattr(
            BACKBONES[options.backbone](count_classes(params), layout, coordinates, ConfigDict(options)),
            "adjacency",
            None,
        )
    except (
        KeyError,
        ValueError,
        TypeError,
    ):  # a config of another version; the learned matrices are shown without initial values
        return None


def _refinement(stored: dict | None) -> list[dict]:
    """The FRM's matrices [K, K]; if only diagonals are learned, `diagonal` [K]. They start as the identity."""
    if stored is None:
        return []
    learned = np.asarray(stored["matrices"], np.float64)
    key = "diagonal" if learned.ndim == 2 else "matrix"
    return [{"name": f"term {term + 1}", key: _round(values)} for term, values in enumerate(learned)]


def _lists(stacked: np.ndarray) -> list[list]:
    """Each matrix of [..., V, V], as rows."""
    stacked = np.asarray(stacked, np.float64)
    return [_round(matrix) for matrix in stacked.reshape(-1, *stacked.shape[-2:])]


def _round(values: np.ndarray) -> list:
    return np.round(np.where(np.isfinite(values), values, 0.0), 4).tolist()
