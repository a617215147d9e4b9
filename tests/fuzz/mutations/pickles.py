"""Pickles with other values, of depth, and such as call functions."""

import pickle

from tests.fuzz.mutations.kinds import Mutation, into, pick
from tests.fuzz.mutations.payloads import payload
from tests.fuzz.mutations.values import DEEP, change_value, descend

MUTATIONS: dict[str, Mutation] = {}
_mutation = into(MUTATIONS)


def _load_pickle(contents: bytes):
    """A pickle of ours or a mutated one; what it may name is what such pickles need."""
    from mmcl_jax.runtime import plain_pickle

    try:
        return plain_pickle.loads(contents)
    except Exception:  # a mutated one; nothing is made of it
        return None


@_mutation("pickle", removes=True)
def pickle_value(rng, contents):
    root = _load_pickle(contents)
    if not isinstance(root, list | dict):
        return contents
    for _ in range(int(pick(rng, (1, 1, 2)))):
        root = change_value(rng, root, numpy_too=True)
    return _pickled(rng, _deepened(root))


def _pickled(rng, root) -> bytes:
    try:
        return pickle.dumps(root, protocol=int(pick(rng, (2, 3, 4, 5))))
    except (ValueError, UnicodeEncodeError, RecursionError):  # a lone surrogate in a name
        return pickle.dumps(str(type(root)))


def _deepened(value):
    """`value` with each mark of depth replaced by 40 pairs within each other."""
    if isinstance(value, str) and value == DEEP:
        pair = (0,)
        for _ in range(40):
            pair = (pair, pair)
        return pair
    if isinstance(value, dict):
        return {key: _deepened(inner) for key, inner in value.items()}
    return [_deepened(inner) for inner in value] if isinstance(value, list) else value


@_mutation("pickle")
def pickle_that_calls(rng, contents):
    root = _load_pickle(contents)
    if not isinstance(root, list | dict):
        return contents
    container, place = descend(rng, root)
    container[place] = payload(rng)
    return _pickled(rng, root if container is not None and container != [root] else payload(rng))


@_mutation("pickle")
def pickle_key_of_pairs(rng, contents):
    """A dict with a key of 40 pairs within each other, which takes 2^40 steps to hash."""
    pairs = b"".join(b"\x94h" + bytes([place]) + b"\x86" for place in range(40))
    return b"\x80\x04}(K\x00\x85" + pairs + b"K\x01u."
