"""MATLAB's files with other names and arrays."""

import io
import warnings

import numpy as np

from tests.fuzz.mutations.kinds import Mutation, into, pick
from tests.fuzz.mutations.values import change_array

MUTATIONS: dict[str, Mutation] = {}
_mutation = into(MUTATIONS)
_TEXT = 116  # bytes at the beginning of the header that people read


def dateless(contents: bytes) -> bytes:
    """A .mat file without the time at which SciPy wrote it, which the text of its header states."""
    return contents[:_TEXT].split(b"Created on")[0].ljust(_TEXT) + contents[_TEXT:]


@_mutation("mat")
def mat_array(rng, contents):
    import scipy.io

    try:
        stored = {k: v for k, v in scipy.io.loadmat(io.BytesIO(contents)).items() if not k.startswith("__")}
        name = pick(rng, list(stored))
        kind = int(rng.integers(6))
        if kind == 0:
            stored[pick(rng, ("x", "SW2", name.upper()))] = stored.pop(name)
        elif kind == 1:
            stored[name] = pick(rng, ("text", {"a": 1}, np.array([stored[name], None], dtype=object), 1 + 2j))
        else:
            stored[name] = change_array(rng, stored[name])
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scipy.io.savemat(stream, stored, do_compression=bool(rng.random() < 0.5))
        return dateless(stream.getvalue())
    except Exception:  # a mutated one, or values that cannot be written
        return contents
