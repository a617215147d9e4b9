"""PyTorch's files of weights with other tensors, other dicts, or one bit changed."""

import io

import numpy as np

from tests.fuzz.mutations.kinds import Mutation, into, pick
from tests.fuzz.mutations.payloads import payload
from tests.fuzz.mutations.values import change_array
from tests.fuzz.mutations.zips import members_of

MUTATIONS: dict[str, Mutation] = {}
_mutation = into(MUTATIONS)


@_mutation("torch")
def torch_value(rng, contents):
    import torch

    try:
        stored = torch.load(io.BytesIO(contents), weights_only=True)
    except Exception:  # a mutated one
        return contents
    name = pick(rng, list(stored))
    tensor = stored[name]
    kind = int(rng.integers(13))
    legacy = {}
    try:
        if kind in (0, 1, 2):
            changed = change_array(rng, tensor.numpy())
            stored[name] = torch.tensor(changed) if isinstance(changed, np.ndarray) else changed
        elif kind == 3:
            del stored[name]
        elif kind == 4:
            stored[f"{name}x"] = stored.pop(name)
        elif kind == 5:
            stored[name] = torch.zeros(1).expand(10**6, 10**6)
        elif kind == 6:
            stored[name] = tensor.to_sparse() if tensor.ndim else tensor
        elif kind == 7:
            stored[name] = payload(rng)
        elif kind == 8:
            stored = {"state_dict": stored, "best_acc": np.float64(0.9), "epoch": 3}
        elif kind == 9:
            stored = {f"module.model.{key}": value for key, value in stored.items()}
        elif kind == 10:
            stored[name] = pick(rng, (tensor.to(torch.bfloat16), tensor.to(torch.complex64), tensor.to(torch.int8)))
        elif kind == 11:
            legacy = {"_use_new_zipfile_serialization": False}
        else:
            stored = {"a": stored, "b": {"c": dict(stored)}}
        stream = io.BytesIO()
        torch.save(stored, stream, **legacy)
        return stream.getvalue()
    except (TypeError, ValueError, RuntimeError):
        return contents


@_mutation("torch")
def torch_bit_of_a_tensor(rng, contents):
    """One bit of the numbers, not of a header."""
    members = members_of(contents)
    names = [name for name in members or () if "/data/" in name and members[name]]
    if not names:
        return contents
    body = members[pick(rng, names)]
    at = contents.find(body)
    if at < 0:
        return contents
    at += int(rng.integers(len(body)))
    return contents[:at] + bytes([contents[at] ^ (1 << int(rng.integers(8)))]) + contents[at + 1 :]
