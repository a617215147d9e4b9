"""Errors that users can fix end a command with a message; all others keep their traceback."""

import ast
import errno
import pathlib
import re
import signal

import jax
import numpy as np
import pytest

from data_prep import synthetic
from experiments import ensemble
from mmcl_jax import torch_weights
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.data.records import RecordsError
from mmcl_jax.runtime.distributed import DistributedError
from mmcl_jax.runtime.errors import (
    ConfigError,
    MMCLError,
    PreparationError,
    file_message,
    is_memory_full,
    memory_message,
    plain_errors,
)
from mmcl_jax.runtime.scratch import scratch_folder
from tests.helpers.internal_error import broken
from tests.helpers.memory_full import ask_too_much

ROOT = pathlib.Path(__file__).parents[2]
# Not for users: a benchmark catches it and leaves that contender out.
INTERNAL = {"UnavailableError"}
# Commands that do not use `plain_errors`: main ends on errors by itself, the others only run other commands.
OWN = {"mmcl_jax/main.py", "data_prep/__main__.py", "experiments/benchmark/scale.py"}


def _sources():
    for package in ("mmcl_jax", "data_prep", "experiments"):
        yield from (ROOT / package).rglob("*.py")


def test_every_error_class_derives_from_the_base():
    found = {}
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                found[node.name] = [base.id for base in node.bases]
    assert {"MMCLError", "ConfigError", "PreparationError", "RecordsError", "ScoresError"} <= found.keys()
    stray = [name for name, bases in found.items() if "MMCLError" not in bases]
    assert set(stray) == {"MMCLError", *INTERNAL}


def test_every_command_ends_plainly_on_errors_that_users_can_fix():
    commands = {path for path in _sources() if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")}
    assert len(commands) > 15
    lacking = {str(path.relative_to(ROOT)) for path in commands if "with plain_errors(" not in path.read_text()}
    assert lacking == OWN


@pytest.mark.parametrize(
    "error", [MMCLError("no"), ConfigError("no"), PreparationError("no"), RecordsError("no"), FileNotFoundError("no")]
)
def test_a_user_s_error_is_a_message_and_a_status(error):
    with pytest.raises(SystemExit) as ended, plain_errors():
        raise error
    assert ended.value.code == "error: no"  # which Python prints, without a traceback, and ends with status 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EROFS, "Read-only", "out/x.npz"), "out/x.npz: read-only; name a place that you may write to"),
        (OSError(errno.EROFS, "Read-only", "/disk/.x.4f2a"), "/disk: read-only; name a place that you may write to"),
        (
            PermissionError(errno.EACCES, "denied", "/x"),
            "/x: access is denied; change its permissions, or name another",
        ),
        (OSError(errno.EROFS, "Read-only"), "[Errno 30] Read-only"),
        (ConfigError("no"), "no"),
    ],
)
def test_a_place_that_is_not_to_be_written_is_named_with_the_remedy(error, message):
    assert file_message(error).startswith(message)


def test_a_memory_that_is_full_is_a_message():
    with pytest.raises(SystemExit) as ended, plain_errors():
        ask_too_much()
    # What JAX says in the brackets differs between its versions.
    assert isinstance(ended.value.__cause__, jax.errors.JaxRuntimeError)
    assert re.fullmatch(
        r"error: the memory does not suffice \(RESOURCE_EXHAUSTED: [^\n]*\). "
        "Compute less at a time, or end other programs that use this device",
        str(ended.value.code),
    )
    with pytest.raises(SystemExit, match=r"^error: the memory does not suffice \(Unable to allocate"), plain_errors():
        np.zeros(2**60, np.uint8)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "RESOURCE_EXHAUSTED: [0] Failed to get module function add: CUDA_ERROR_OUT_OF_MEMORY: out of memory "
            "[executable_name='jit__random_state']",
            "RESOURCE_EXHAUSTED: [0] Failed to get module function add: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        ),
        (
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8.91GiB with allocator GPU_0_bfc on device 0. "
            "[tf-allocator-allocation-error=''] [executable_name='jit__train_steps']",
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8.91GiB with allocator GPU_0_bfc on device 0",
        ),
    ],
)
def test_messages_of_a_gpu_whose_memory_is_full(message, shown):
    assert memory_message(RuntimeError(message), "Less.") == f"the memory does not suffice ({shown}). Less."


def test_a_message_that_quotes_a_full_memory_is_left_as_it_is():
    message = "a device or another process of the run failed (RESOURCE_EXHAUSTED: Out of memory); start again"
    with pytest.raises(SystemExit) as ended, plain_errors():
        raise DistributedError(message)
    assert ended.value.code == f"error: {message}"
    assert not is_memory_full(DistributedError(message))


@pytest.mark.parametrize("error", [ValueError, KeyError, RuntimeError, TypeError, AssertionError])
def test_another_error_stays_what_it_is(error):
    with pytest.raises(error, match="internal"), plain_errors():
        raise error("internal")


def test_ctrl_c_is_a_message():
    with pytest.raises(SystemExit, match=r"^interrupted; nothing was changed$"), plain_errors():
        raise KeyboardInterrupt
    with pytest.raises(SystemExit, match=r"^stopped$"), plain_errors("stopped"):
        raise KeyboardInterrupt


def test_sigterm_ends_a_command_as_ctrl_c_does_and_leaves_nothing(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    ended = pytest.raises(SystemExit, match=r"^interrupted; nothing was changed$")
    with ended, plain_errors(), scratch_folder(tmp_path / "out.incomplete") as folder:
        (folder / "begun").write_text("x")
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    assert not list(tmp_path.iterdir())


# Commands of each package. For main, see tests/test_main.py.
def test_an_internal_error_of_a_preparation_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "make_clips", broken)
    with pytest.raises(ValueError, match="cannot reshape array"):
        synthetic.main([f"--out={tmp_path / 'out'}"])


def test_an_internal_error_of_an_experiment_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble.scores, "read_together", broken)
    with pytest.raises(ValueError, match="cannot reshape array"):
        ensemble.main(["a.npz", "b.npz"])


def test_an_internal_error_of_torch_weights_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_weights, "import_checkpoint", broken)
    with pytest.raises(ValueError, match="cannot reshape array"):
        torch_weights.main(["import", "a.pt", str(tmp_path / "run")])


def test_errors_about_config_and_layout_are_value_errors_too():
    with pytest.raises(ValueError, match="center_of_mass 3 is not one of"):
        LAYOUTS["ntu"].center_of_mass(3)
    assert issubclass(ConfigError, ValueError)
