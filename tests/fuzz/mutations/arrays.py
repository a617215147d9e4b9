"""Files of arrays, .npy and .npz, with other arrays, names or headers."""

import io
import struct
import zipfile

import numpy as np

from tests.fuzz.mutations.kinds import CANARY, Mutation, into, pick
from tests.fuzz.mutations.payloads import payload
from tests.fuzz.mutations.values import change_array
from tests.fuzz.mutations.zips import members_of, zip_of

MUTATIONS: dict[str, Mutation] = {}
_mutation = into(MUTATIONS)


def _npy(value, allow_pickle: bool = True) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asanyarray(value), allow_pickle=allow_pickle)
    return stream.getvalue()


@_mutation("npz")
def npz_array(rng, contents):
    members = members_of(contents)
    if not members:
        return contents
    name = pick(rng, list(members))
    try:
        array = np.load(io.BytesIO(members[name]), allow_pickle=False)
        changed = change_array(rng, array)
        members[name] = _npy(changed)
    except Exception:  # no array, or one that cannot be written
        return contents
    return zip_of(members, int(pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))


@_mutation("npz")
def npz_members(rng, contents):
    members = members_of(contents)
    if not members:
        return contents
    name = pick(rng, list(members))
    kind = int(rng.integers(5))
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[pick(rng, (f"../{name}", "x.npy", name.upper(), name.removesuffix(".npy"), "é.npy"))] = members.pop(
            name
        )
    elif kind == 2:
        members[name] = _npy(np.array([payload(rng)], dtype=object))
    elif kind == 3:
        members[name] = pick(rng, (b"", b"x", members[name] + b"0", _npy(pick(rng, (0, "x", [1, 2], 1e30)))))
    else:
        members["extra.npy"] = members[name]
    return zip_of(members, int(pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))


@_mutation("npz")
def npz_header(rng, contents):
    """The header of a member declares another shape, type or order; the archive's checksums are right."""
    members = members_of(contents)
    if not members:
        return contents
    name = pick(rng, list(members))
    members[name] = npy_header(rng, members[name])
    return zip_of(members)


@_mutation("npy")
def npy_header(rng, contents):
    try:
        stream = io.BytesIO(contents)
        version = np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        body = stream.read()
    except Exception:  # a mutated one
        return contents
    shown = pick(
        rng,
        (
            f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': (1000000000000,), }}",
            f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': (1{'0' * 400},), }}",
            f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({'9' * 5000},), }}",
            f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': (-1,), }}",
            f"{{'descr': '{dtype.str}', 'fortran_order': True, 'shape': {shape}, }}",
            f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}, }}",
            f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}",
            f"{{'descr': [('a', '{dtype.str}')], 'fortran_order': False, 'shape': {shape}, }}",
            f"__import__('{CANARY}')",
            "{" * 60000,
            "",
        ),
    ).encode()
    shown += b" " * (-(len(shown) + 11) % 64) + b"\n"
    if len(shown) >= 2**16:
        shown = shown[: 2**16 - 1]
    return np.lib.format.magic(1, 0) + struct.pack("<H", len(shown)) + shown + body if version else contents


@_mutation("npy")
def npy_array(rng, contents):
    try:
        return _npy(change_array(rng, np.load(io.BytesIO(contents), allow_pickle=False)))
    except Exception:  # a mutated one, or values that cannot be written
        return contents
