"""The package as a user installs it: what the wheel holds, its commands, and a first run outside the repository."""

import importlib
import importlib.metadata
import json
import pathlib
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

import mmcl_jax
from tests.helpers import installation, runs

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((installation.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# The config of docs/examples/first_run.py as a file of the user's own.
OWN_CONFIG = """
from mmcl_jax.config import get_config as defaults, without_images_and_text

def get_config():
    config = without_images_and_text(defaults())
    config.data.update(records="records", window=16)
    config.model.base_channels = 16
    return config
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    return installation.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> installation.Environment:
    return installation.Environment.beside(tmp_path_factory.mktemp("environment") / "venv", wheel)


def test_only_two_packages_are_installed(wheel):
    top = {name.split("/")[0] for name in installation.files_in(wheel)}
    assert top == {"mmcl_jax", "data_prep", f"mmcl_jax-{PROJECT['version']}.dist-info"}


def test_every_file_of_the_packages_is_in_the_wheel(wheel):
    found = set(installation.files_in(wheel))
    for package, place in (("mmcl_jax", "mmcl_jax"), ("data_prep", "data_prep"), ("configs", "mmcl_jax/configs")):
        folder = installation.ROOT / package
        files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert files
        assert {f"{place}/{path.relative_to(folder)}" for path in files} <= found


def test_every_console_script_is_tried():
    assert set(installation.SCRIPTS) == set(PROJECT["scripts"])


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["mmcl-train", "--help"], ["usage: mmcl-train --config=FILE.py|NAME", "\n  --config: ", "\n  --workdir: "]),
        (["mmcl-evaluate", "--help"], ["usage: mmcl-evaluate", "(default: 'eval')"]),
        (["mmcl-predict", "--help"], ["usage: mmcl-predict", "--camera"]),
        (["mmcl-export", "--help"], ["usage: mmcl-export", "--format"]),
        (["mmcl-torch-weights", "--help"], ["usage: mmcl-torch-weights"]),
        (["mmcl-prepare", "--help"], ["usage: mmcl-prepare", "nw_ucla"]),
        (["mmcl-prepare", "nw_ucla", "--help"], ["usage: mmcl-prepare nw_ucla", "--source"]),
    ],
)
def test_help(installed, tmp_path, command, says):
    printed = installed.script(*command, cwd=tmp_path)
    assert all(part in printed for part in says), printed


def test_the_version_is_the_projects(installed, tmp_path):
    printed = installed.python("-c", "import mmcl_jax; print(mmcl_jax.__version__, mmcl_jax.__file__)", cwd=tmp_path)
    version, place = printed.split()
    assert version == PROJECT["version"]
    assert pathlib.Path(place).is_relative_to(installed.programs.parent)


def test_configs_of_the_package_are_found_by_name(installed, tmp_path):
    lines = "from mmcl_jax import config_files as c; print(c.names(), c.locate('ntu120:xset,bone'))"
    printed = installed.python("-c", lines, cwd=tmp_path)
    assert "'demo', 'ntu120', 'ntu60', 'nw_ucla', 'sysu', 'utd_mhad'" in printed
    assert printed.rstrip().endswith("/mmcl_jax/configs/ntu120.py:xset,bone")


@pytest.mark.long
def test_a_first_run_and_a_config_file_of_ones_own(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", runs.UNOPTIMISED)
    printed = installed.python(str(installation.ROOT / "docs" / "examples" / "first_run.py"), cwd=tmp_path)
    accuracy = float(printed.splitlines()[-1].removeprefix("top-1 accuracy:"))
    (start,) = json.loads((tmp_path / "workdir" / "version.json").read_text())["starts"]
    assert (start["mmcl_jax"], start["commit"]) == (PROJECT["version"], "unknown")
    assert accuracy > 0.9  # two actions that a glance tells apart
    (tmp_path / "own.py").write_text(OWN_CONFIG)
    printed = installed.script("mmcl-evaluate", "--config=own.py", "--workdir=workdir", cwd=tmp_path)
    assert f"top-1 {100 * accuracy:.2f} %" in printed


def test_the_requirements_pin_every_dependency():
    """Each is named in pyproject.toml, and pinned in requirements.txt to a version that its range admits."""
    lines = (installation.ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = {Requirement(line).name.lower(): Requirement(line) for line in lines if line and not line.startswith("#")}
    groups = PROJECT["optional-dependencies"].values()
    named = [Requirement(text) for group in (PROJECT["dependencies"], *groups) for text in group]
    assert {requirement.name.lower() for requirement in named} - {"mmcl_jax"} == pins.keys()
    for requirement in named:
        if requirement.name != "mmcl_jax":
            (pin,) = pins[requirement.name.lower()].specifier
            assert requirement.specifier.contains(pin.version), f"{requirement} does not admit {pin.version}"


def test_pre_commit_runs_the_pinned_ruff():
    hooks = yaml.safe_load((installation.ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (ruff,) = [repository for repository in hooks if repository["repo"].endswith("ruff-pre-commit")]
    pins = (installation.ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert f"ruff=={ruff['rev'].removeprefix('v')}" in pins


def test_a_checkout_without_metadata_still_imports(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "version", missing)
        assert importlib.reload(mmcl_jax).__version__ == "unknown"
    importlib.reload(mmcl_jax)
