"""One value somewhere within lists and dicts, as JSON and pickles hold them, or one array becomes another."""

import warnings

import numpy as np

from tests.fuzz.mutations.kinds import pick

DEEP = "@deep@"  # the mark of a value that is many lists within each other
_ODD_VALUES = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, -(10**30), 0.5, 1e30, 1e39, float("nan"), float("inf")),
    *("", "x", "a\0", "\0", "\ud800", "é", "../x", "/etc/passwd", "x" * 3000, [], {}, [[]], {"": ""}, [None], DEEP),
    *("9" * 30, [1, 2, 3], {"a": 1}, "nan", -0.0, 10**5000),
)


def descend(rng: np.random.Generator, root):
    """(container, key) somewhere within `root`, a list or a dict."""
    top: list | dict = [root]
    container, place = top, 0
    while True:
        value = container[place]
        if not isinstance(value, list | dict) or not value or (rng.random() < 0.25 and container is not top):
            return container, place
        container = value
        place = pick(rng, list(value) if isinstance(value, dict) else range(len(value)))


def change_value(rng: np.random.Generator, root, numpy_too: bool):
    """`root` with one value changed, in place where it can be."""
    holder = [root]
    container, place = descend(rng, root)
    if container == [root]:
        container = holder
    value = container[place]
    if numpy_too and isinstance(value, np.ndarray) and rng.random() < 0.7:
        container[place] = change_array(rng, value)
        return holder[0]
    kind = int(rng.integers(9))
    if kind in (0, 1, 2):
        container[place] = pick(rng, _ODD_VALUES)
    elif kind == 3 and container is not holder:
        del container[place]
    elif kind == 4 and isinstance(container, list) and container is not holder:
        container.extend([value] * int(pick(rng, (1, 2, 100))))
    elif kind == 4 and isinstance(container, dict):
        container[pick(rng, ("", "x", "\ud800", "a\0", str(place) + " "))] = container.pop(place)
    elif kind == 5:
        container[place] = pick(rng, ([value], {"x": value}, {"": value}, [value, value]))
    elif kind == 6 and isinstance(value, list | dict) and value:
        container[place] = next(iter(value.values())) if isinstance(value, dict) else value[0]
    elif kind == 7:
        container[place] = _other_type(value)
    elif isinstance(value, list):
        container[place] = value[::-1] if rng.random() < 0.5 else value[: len(value) // 2]
    elif isinstance(value, dict):
        value[pick(rng, ("x", "", "label", "type"))] = pick(rng, _ODD_VALUES)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        container[place] = value + pick(rng, (1, -1, 0.5, 10**6))
    return holder[0]


def _other_type(value):
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return float(value) if abs(value) < 1e15 else str(value)[:100]
    if isinstance(value, float):
        return str(value)
    if isinstance(value, str):
        return [value]
    return dict(enumerate(value)) if isinstance(value, list) else str(value)[:100]


_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i8", "u1", "u8", "c16", "S3", "U3", "?", ">f4", ">i8", "O", "M8[s]")


def change_array(rng: np.random.Generator, array: np.ndarray):
    """Another type, shape or value, or the array itself where that cannot be."""
    kind = int(rng.integers(8))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == 0:
                return array.astype(pick(rng, _DTYPES))
            if kind == 1:
                return pick(
                    rng,
                    (
                        array[:0],
                        array[..., :1],
                        array[..., :-1],
                        array.T,
                        array[None],
                        array.ravel(),
                        array[:1],
                        np.concatenate([array, array]),
                        array[::-1],
                        np.asfortranarray(array),
                        array.reshape(-1)[0],
                    ),
                )
            if kind in (2, 3, 4):
                changed = np.array(array)
                value = pick(rng, (np.nan, np.inf, -np.inf, 1e30, 1e39, -1, 0, 1, 2**31, 2**63 - 1, 250, 1e-300))
                changed.reshape(-1)[int(rng.integers(changed.size))] = value
                return changed
            if kind == 5:
                return np.zeros_like(array)
            if kind == 6:
                return pick(rng, (array.tolist(), array * 1000, -array, array * np.nan, np.array(None), np.array("x")))
            changed = np.array(array)
            place = int(rng.integers(len(changed)))
            changed[place] = changed[int(rng.integers(len(changed)))]
            return changed
    except (TypeError, ValueError, OverflowError, IndexError):
        return array
