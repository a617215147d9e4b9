"""Compiler flags by device; compiled programs: kept where asked, read back with the same bits, or replaced."""

import os
import platform
import subprocess
import sys

import jax
import pytest

from mmcl_jax.runtime.backend import (
    gpu_compiler_options,
    keep_compiled_programs,
    tune_compiler,
    tune_gpu_compiler,
    tune_training_compiler,
)
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


_CPU_FLAG = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"
_LOOPS_FLAG = "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling"
_GPU_FLAG = "--xla_gpu_enable_triton_gemm=false"


@pytest.fixture
def gpu_plugin(tmp_path, monkeypatch):
    """A plugin's package, as those of CUDA and ROCm install it."""
    (tmp_path / "jax_plugins" / "xla_cuda13").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "")


def test_gpus_do_without_triton_s_products(gpu_plugin, monkeypatch):
    tune_compiler()
    tune_compiler()
    assert os.environ["XLA_FLAGS"] == f"{_CPU_FLAG} {_GPU_FLAG}"
    monkeypatch.setenv("XLA_FLAGS", "")
    tune_gpu_compiler()
    assert os.environ["XLA_FLAGS"] == _GPU_FLAG


def test_a_flag_that_the_user_set_stays(gpu_plugin, monkeypatch):
    chosen = "--xla_gpu_enable_triton_gemm=true --xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
    monkeypatch.setenv("XLA_FLAGS", chosen)
    tune_compiler()
    assert os.environ["XLA_FLAGS"] == chosen


def test_programs_for_cpus_are_compiled_without_flags_for_gpus(gpu_plugin, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    tune_compiler()
    assert os.environ["XLA_FLAGS"] == _CPU_FLAG


def test_a_training_step_for_cpus_has_loops_that_are_not_unrolled(gpu_plugin, monkeypatch):
    tune_training_compiler()
    assert _LOOPS_FLAG not in os.environ["XLA_FLAGS"]
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    tune_training_compiler()
    tune_training_compiler()
    assert os.environ["XLA_FLAGS"] == f"{_CPU_FLAG} {_LOOPS_FLAG}"


def test_cpus_accept_the_flag_for_gpus():
    command = [sys.executable, "-c", "import jax; print(float(jax.jit(lambda x: x @ x)(jax.numpy.ones((2, 2)))[0, 0]))"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": _GPU_FLAG}
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "2.0\n"


def test_programs_of_a_process_that_uses_a_gpu_already_have_it_as_an_option(monkeypatch):
    assert gpu_compiler_options() == {}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    options = gpu_compiler_options()
    assert options == {"xla_gpu_enable_triton_gemm": False}
    assert jax.jit(lambda x: 2 * x, compiler_options=options)(1.5) == 3  # XLA knows the option
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=true")
    assert gpu_compiler_options() == {}


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


_KEPT = "about a minute for a published model on two cores; kept for the next start in"


@pytest.mark.long
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
        return {path: path.stat().st_mtime_ns for path in folder.glob("jit__train_step*-cache")}

    folder = tmp_path / "compiled"
    first = run("first")
    assert "absent bodies are computed once, with the same result: 14 bodies of 16 in a batch" in first
    assert f"compiling the training step for 14 bodies; {_KEPT} {folder}" in first
    assert "first step done after" in first
    written = programs()
    assert len(written) == 1
    run("second")
    assert programs() == written
    (program,) = written
    program.write_bytes(program.read_bytes()[:1000])
    assert "Error reading persistent compilation cache entry for 'jit__train_steps'" in run("third")
    expected = runs.read_checkpoint(tmp_path / "first", runs.STEPS_PER_EPOCH)
    for name in ("second", "third"):
        runs.assert_same_arrays(runs.read_checkpoint(tmp_path / name, runs.STEPS_PER_EPOCH), expected)
    assert float(next(iter(runs.read_rows_with_times(tmp_path / "second")))["first_step_seconds"]) > 0
