"""Ctrl-C while a command imports packages: a word, no traceback."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def interrupted(tmp_path):
    """Runs Python while the import of a package is interrupted; returns what it writes to the standard error."""

    def run(package: str, *arguments: str) -> str:
        (tmp_path / f"{package}.py").write_text("raise KeyboardInterrupt")
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
        )
        assert done.returncode == -signal.SIGINT
        return done.stderr

    return run


@pytest.mark.parametrize(
    ("package", "command"),
    [("jax", "mmcl_jax.main"), ("numpy", "data_prep.synthetic"), ("jax", "experiments.summarise")],
)
def test_a_command_says_that_it_was_interrupted(interrupted, package, command):
    assert interrupted(package, "-m", command) == "interrupted\n"


def test_a_program_that_uses_the_library_keeps_its_traceback(interrupted):
    assert "Traceback" in interrupted("jax", "-c", "import mmcl_jax; mmcl_jax.load_model")
