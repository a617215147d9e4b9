"""PyTorch checkpoints of narrow models, and the command that takes them in, for tests."""

import pathlib

import jax
import numpy as np
import pytest
import torch

from mmcl_jax.pytorch import state_dicts
from mmcl_jax.pytorch.published import PUBLISHED, _entries, _template, entries_of
from mmcl_jax.torch_weights import main

CLASSES, BODIES, WIDTH = 12, 1, 4


def random_state_dict(name: str, **changes: int) -> dict[str, np.ndarray]:
    """A narrow model's state dict, with batch norms that have counted 12345 batches."""
    sizes = {"num_classes": CLASSES, "joints": 25, "channels": 3, "bodies": BODIES, "base_channels": WIDTH}
    sizes |= {"image_width": 7, "text_width": 3, "num_layers": 6} | changes
    rng = np.random.default_rng(0)
    model = PUBLISHED[name]
    template = _template(model, sizes, _entries(model, sizes))
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32), template)
    state_dict = state_dicts.to_torch(variables, entries_of(name, variables))
    return {k: np.array(12345) if k.endswith("tracked") else v for k, v in state_dict.items()}


def tensors(state_dict: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.tensor(value) for key, value in state_dict.items()}


def save(content, path: pathlib.Path) -> pathlib.Path:
    """Writes `content` with torch, or arrays by name as `.npz`."""
    if path.suffix == ".npz":
        np.savez(path, **content)
    else:
        torch.save(content, path)
    return path


def command(direction: str, *arguments) -> None:
    main([direction, *map(str, arguments)])


def fails(capsys, direction: str, *arguments) -> str:
    """Runs a command that must end with status 1 and a message; returns the message."""
    with pytest.raises(SystemExit) as caught:
        command(direction, *arguments)
    message = str(caught.value.code)  # Python prints it and ends with status 1
    assert message.startswith("error: ") and "Traceback" not in message + capsys.readouterr().err
    return message.removeprefix("error: ")
