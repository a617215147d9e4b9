"""The format of reference outputs ("goldens"), and the rules for comparing with them.

A reference of a model has two files. `NAME.json` holds the name and shape of the input, a seed, every PyTorch key with
its shape, the norms of the gradients, and possibly a note; `NAME.npz` holds the outputs. No file holds weights or
inputs: they are a function of name, shape and seed, `fill` and `inputs` below, which are part of the format.
"""

import itertools
import json
import math
import pathlib
import re
import zlib
from collections.abc import Callable, Mapping

import numpy as np

from mmcl_jax.runtime.errors import MMCLError

GRADIENT_TOLERANCE = 0.01  # relative to the norm of a parameter's gradient, plus 1e-6 of the largest norm
MOST_ROUNDING = 0.05
ROUNDING_RUNS = 8


class GoldenError(MMCLError, ValueError):
    """A reference that cannot be read or judged. The message names the file."""


def fill(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Returns the reference value of the PyTorch state-dict entry `name` of shape `shape`."""
    random = _random(name, seed)
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    value = random.standard_normal(shape)
    if leaf == "running_var":
        value = 2.0 + 4.0 * random.random(shape)
    elif leaf in ("running_mean", "bias"):
        value = 0.1 * value
    elif leaf == "alpha":
        value = np.full(shape, 0.3)
    elif leaf in ("PA", "PosMatrix", "NegMatrix"):
        value = 0.04 + 0.04 * value
    elif leaf == "weight" and len(shape) == 1:  # of a batch norm
        value = 1.0 + 0.1 * value
    else:
        value = value / np.sqrt(max(math.prod(shape[1:]), 1))
    return np.asarray(value).astype(np.float32)


def inputs(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Returns the reference input `name`: standard normal, float32."""
    return np.asarray(_random(f"input/{name}", seed).standard_normal(shape)).astype(np.float32)


def _random(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def read(path: pathlib.Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Returns the contents of `path`, a `NAME.json`, and the arrays of `NAME.npz`.

    Raises:
      GoldenError: one of the two is missing, broken or incomplete.
    """
    try:
        reference = json.loads(path.read_text())
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            stored = dict(arrays)
    except Exception as error:  # zipfile and numpy raise many kinds on a broken file
        raise GoldenError(f"{path}: not a readable reference ({error})") from error
    inputs = ("inputs",) if "inputs" in reference else ("input_name", "input_shape")
    missing = [key for key in ("state_dict", "seed", *inputs) if key not in reference]
    if missing:
        raise GoldenError(f"{path.name} lacks {', '.join(missing)}; make the reference again")
    return reference, stored


def state_dict(reference: Mapping) -> dict[str, np.ndarray]:
    """Returns the PyTorch state dict of a reference. If its note says so, 4-d weights are multiplied by sqrt(2)."""
    gain = np.float32(np.sqrt(2)) if re.search(r"4-d .*\* sqrt\(2\)", reference.get("note", "")) else 1
    filled = {key: fill(key, tuple(shape), reference["seed"]) for key, shape in reference["state_dict"].items()}
    return {key: value * gain if value.ndim == 4 else value for key, value in filled.items()}


def relative_error(actual, expected) -> float:
    """Returns the norm of the difference divided by that of `expected`, in float64; inf if shapes differ."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape:
        return math.inf
    difference, norm = float(np.linalg.norm(actual - expected)), float(np.linalg.norm(expected))
    return difference / norm if norm else (math.inf if difference else 0.0)


def gradient_norm_errors(
    ours: Mapping[str, np.ndarray], reference: Mapping, rounding: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Compares the norms of gradients with those of a reference, parameter by parameter.

    Two norms agree if `|a - b| <= 0.01 b + 1e-6 max(all norms)`. A bias directly in front of a batch norm has no
    effect, so its gradient is rounding noise in both programs; it also agrees if both norms are below `5e-6 max(all
    norms)`.

    Args:
      ours: gradients by PyTorch name.
      reference: contents of the `.json`; `grad_norm` and `state_dict` are read.
      rounding: by PyTorch name, the amount by which rounding is known to move a norm. That much of the difference is
        excused, up to `MOST_ROUNDING` of the norm. A gradient that rounding moves by a quarter is noise as well, and
        agrees if both norms are below `1e-5 max(all norms)`.

    Returns:
      The error of each parameter, `|a - b| / (b + 1e-4 max(all norms))`, at most `GRADIENT_TOLERANCE` in a good model;
      0 for agreeing noise; inf if a gradient is not finite or only one side has it.
    """
    expected = reference["grad_norm"]
    largest = max(expected.values())
    keys = list(reference["state_dict"])
    cancelled = {key for key, following in itertools.pairwise(keys) if _is_bias_before_batch_norm(key, following, keys)}
    errors = dict.fromkeys(sorted(ours.keys() ^ expected.keys()), math.inf)
    for key in sorted(ours.keys() & expected.keys()):
        norm = float(np.linalg.norm(np.asarray(ours[key], np.float64)))
        moved = (rounding or {}).get(key, 0.0)
        noise = 5e-6 if key in cancelled else 1e-5 if moved > norm / 4 else 0.0
        if max(norm, expected[key]) < noise * largest:
            errors[key] = 0.0
        else:
            excused = min(moved, MOST_ROUNDING * expected[key])
            error = max(abs(norm - expected[key]) - excused, 0.0) / (expected[key] + 1e-4 * largest)
            errors[key] = error if math.isfinite(norm) else math.inf
    return errors


def measure_rounding(
    compute: Callable[[tuple[np.ndarray, ...]], Mapping[str, np.ndarray]],
    inputs: tuple[np.ndarray, ...],
    gradients: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """The greatest change of the norm of each gradient when every input moves by one unit in the last place.

    Args:
      compute: maps inputs to gradients by PyTorch name.
      inputs: float arrays.
      gradients: the gradients that it computes from `inputs`.
    """
    random = np.random.default_rng(0)
    furthest = dict.fromkeys(gradients, 0.0)
    for _ in range(ROUNDING_RUNS):
        moved = tuple(
            np.nextafter(x, np.where(random.random(x.shape) < 0.5, -np.inf, np.inf).astype(x.dtype)) for x in inputs
        )
        for key, gradient in compute(moved).items():
            distance = abs(float(np.linalg.norm(gradient)) - float(np.linalg.norm(gradients[key])))
            furthest[key] = max(furthest[key], distance)
    return furthest


def gradient_norm_mismatches(
    ours: Mapping[str, np.ndarray],
    reference: Mapping,
    compute: Callable[[tuple[np.ndarray, ...]], Mapping[str, np.ndarray]] | None = None,
    inputs: tuple[np.ndarray, ...] = (),
) -> list[str]:
    """Returns one line per parameter that disagrees by `gradient_norm_errors`.

    With `compute` and `inputs`, from which `ours` were computed, differences that rounding explains are excused (see
    `measure_rounding`); these depend on the processor and on the number of its threads.
    """
    expected = reference["grad_norm"]
    errors = gradient_norm_errors(ours, reference)
    if compute is not None and max(errors.values()) > GRADIENT_TOLERANCE:
        errors = gradient_norm_errors(ours, reference, measure_rounding(compute, inputs, ours))
    mismatches = []
    for key, error in errors.items():
        if error > GRADIENT_TOLERANCE and not (key in ours and key in expected):
            mismatches.append(f"{key}: only in one of the two")
        elif error > GRADIENT_TOLERANCE:
            norm = float(np.linalg.norm(np.asarray(ours[key], np.float64)))
            mismatches.append(f"{key}: {norm}, expected {expected[key]} (largest: {max(expected.values())})")
    return mismatches


def _is_bias_before_batch_norm(key: str, following: str, keys: list[str]) -> bool:
    """Whether `key` is the bias of a layer that is not a batch norm, and `following` belongs to one."""
    layer, _, leaf = key.rpartition(".")
    following_layer = following.rpartition(".")[0]
    return leaf == "bias" and f"{layer}.running_mean" not in keys and f"{following_layer}.running_mean" in keys
