"""What the tests share: tiny records, one finished run on them, compiled programs; slow tests run last."""

import contextlib
import fcntl
import os
import pathlib

import hypothesis
import jax
import pytest
from absl import logging

from mmcl_jax.runtime.backend import compile_loops_fast
from tests.helpers import runs
from tests.helpers.shallow import make_shallow

# The same examples every time, without a clock and without a memory of earlier failures.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("same")

compile_loops_fast()  # as in training; before the first test uses a device

_VERBOSITY, _LEVEL = logging.get_verbosity(), logging.get_absl_logger().level


def pytest_collection_modifyitems(items):
    """Puts the tests marked `slow` last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory, worker_id) -> pathlib.Path:
    """A folder that all processes of this test session share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@contextlib.contextmanager
def _alone(path: pathlib.Path):
    """One process at a time is in here; yields whether `path` is still to be made."""
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not path.exists()


@pytest.fixture(scope="session")
def tiny_records(session_folder) -> pathlib.Path:
    """Synthetic records of 24 training and 12 test clips with images and text. Do not change them: copy them."""
    folder = session_folder / "records"
    with _alone(folder) as to_do:
        if to_do:
            runs.write_tiny_records(folder)
    return folder


@pytest.fixture(scope="session")
def compiled(session_folder) -> pathlib.Path:
    """Where the processes that tests start keep compiled programs."""
    return pathlib.Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", session_folder / "compiled"))


@pytest.fixture(scope="session")
def finished_run(session_folder, tiny_records, compiled) -> pathlib.Path:
    """The workdir of a tiny MMCL run that nobody interrupted; its output is beside it. Do not change it."""
    workdir, log = session_folder / "finished", session_folder / "finished.log"
    with _alone(log) as to_do:
        if to_do:
            runs.run(runs.command(tiny_records, workdir), compiled, log)
    text = log.read_text()
    assert (workdir / "scores_test.npz").exists(), text
    return workdir


@pytest.fixture(autouse=True)
def _same_log_level():
    """Every test begins with the log level of the session, which commands change: any order gives the same log."""
    logging.set_verbosity(_VERBOSITY)
    logging.get_absl_logger().setLevel(_LEVEL)


@pytest.fixture
def shallow(monkeypatch):
    """Backbones have three blocks."""
    make_shallow(monkeypatch.setitem)


@pytest.fixture
def compilations():
    """A function that returns how many programs JAX has compiled since the test began."""
    compiled = []

    def listen(event: str, _seconds: float, **_details) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: len(compiled)
    jax.monitoring.unregister_event_duration_listener(listen)
