"""Compiled programs: kept where asked, read back with the same bits, and no trouble where they are damaged."""

import os
import platform
import subprocess
import sys

import jax
import pytest

from mmcl_jax.runtime.backend import keep_compiled_programs
from tests.helpers import runs


@pytest.fixture(autouse=True)
def _as_before():
    before = {name: getattr(jax.config, name) for name in ("jax_enable_compilation_cache", "jax_compilation_cache_dir")}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_folder_is_made_and_none_is_none(tmp_path):
    keep_compiled_programs(tmp_path / "some" / "where")
    assert (tmp_path / "some" / "where").is_dir()
    assert jax.config.jax_enable_compilation_cache
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "some" / "where")
    keep_compiled_programs(None)
    assert not jax.config.jax_enable_compilation_cache


def test_a_folder_that_cannot_be_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    keep_compiled_programs(tmp_path / "file" / "folder")
    assert not jax.config.jax_enable_compilation_cache


_PAGE_FAULTS = """
import resource, sys
import numpy as np
from mmcl_jax.runtime.backend import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
np.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's allocator that is set")
@pytest.mark.parametrize(("platforms", "kept"), [("cpu", True), ("cuda", False)])
def test_freed_memory_is_kept_on_cpus_alone(platforms, kept):
    def page_faults(argument: str) -> int:
        """Of five arrays of 128 MiB, each freed before the next."""
        command = [sys.executable, "-c", _PAGE_FAULTS, argument]
        environment = {**os.environ, "JAX_PLATFORMS": platforms}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return int(done.stdout)

    as_usual, asked = page_faults("as usual"), page_faults("kept")
    assert as_usual > 200
    assert (asked < as_usual / 10) == kept


@pytest.mark.slow
def test_a_run_reads_what_another_compiled_and_compiles_what_is_damaged(tiny_records, tmp_path):
    def run(name: str) -> str:
        workdir = tmp_path / name
        changes = {"loss__contrastive_weight": 0, "loss__refinement_weight": 0, "num_epochs": 1, "warmup_epochs": 0}
        command = runs.command(tiny_records, workdir, program="tests.helpers.shallow", **changes)
        command.append(f"--compilation_cache={folder}")
        process = runs.start(command, tmp_path, tmp_path / f"{name}.log", hasty=True)
        assert process.wait(timeout=runs.PATIENCE) == 0, (tmp_path / f"{name}.log").read_text()
        return (tmp_path / f"{name}.log").read_text()

    def programs() -> dict:
        return {path: path.stat().st_mtime_ns for path in folder.glob("jit_train_step*-cache")}

    folder = tmp_path / "compiled"
    assert "first step done after" in run("first")
    written = programs()
    assert len(written) == 1
    run("second")
    assert programs() == written
    (program,) = written
    program.write_bytes(program.read_bytes()[:1000])
    assert "Error reading persistent compilation cache entry for 'jit_train_steps'" in run("third")
    expected = runs.read_checkpoint(tmp_path / "first", runs.STEPS_PER_EPOCH)
    for name in ("second", "third"):
        runs.assert_same_arrays(runs.read_checkpoint(tmp_path / name, runs.STEPS_PER_EPOCH), expected)
    assert float(next(iter(runs.read_rows_with_times(tmp_path / "second")))["first_step_seconds"]) > 0
