"""The documents hold: links lead somewhere, commands and options exist, Python runs, every config key is explained."""

import argparse
import copy
import importlib.util
import re
import runpy
import sys
import tomllib
import warnings

import numpy as np
import pytest
import yaml
from absl import flags

from mmcl_jax import config as run_config
from mmcl_jax import config_files
from mmcl_jax.data.records import Records
from mmcl_jax.models import BACKBONES
from tests.helpers import documents, runs

MAKEFILE = (documents.ROOT / "Makefile").read_text()
PYPROJECT = tomllib.loads((documents.ROOT / "pyproject.toml").read_text())
OURS = ("mmcl_jax", "data_prep", "experiments")
COMMANDS = documents.commands()
CODE = documents.code_blocks()


class Parsed(Exception):
    """Arguments that a command accepts; `rest`, those that it hands on."""

    def __init__(self, rest: list[str]):
        self.rest = rest


@pytest.fixture
def only_parse(monkeypatch):
    """Commands end with Parsed where they would begin to work."""
    parse_known = argparse.ArgumentParser.parse_known_args
    depth = 0

    def parse_known_args(self, args=None, namespace=None):
        nonlocal depth
        depth += 1
        try:
            known, rest = parse_known(self, args, namespace)
        finally:
            depth -= 1
        if depth == 0:
            raise Parsed(rest)
        return known, rest

    def parse_args(self, args=None, namespace=None):
        nonlocal depth
        depth += 1
        try:
            _, rest = parse_known(self, args, namespace)
        finally:
            depth -= 1
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        raise Parsed([])

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known_args)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)


def python_commands() -> list[documents.Command]:
    return [command for command in COMMANDS if command.words[:2] == ("python", "-m")]


@pytest.mark.parametrize("page", documents.PAGES, ids=lambda page: page.relative_to(documents.ROOT).as_posix())
def test_links_lead_to_files_and_headings(page):
    for link in documents.links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in documents.anchors(target), link


def test_readme_is_short():
    assert len(documents.read(documents.README).splitlines()) <= 200


@pytest.mark.parametrize("page", documents.SITE, ids=lambda page: page.relative_to(documents.ROOT).as_posix())
def test_pages_begin_with_what_a_reader_gains(page):
    title, _, promise = documents.read(page).splitlines()[:3]
    assert title.startswith("# ")
    assert promise.startswith("After this page you ")


def test_commands_are_found():
    assert len(python_commands()) > 80
    assert len(COMMANDS) > 110


@pytest.mark.parametrize("command", python_commands(), ids=str)
def test_python_commands_exist_with_their_options(command, only_parse, monkeypatch):
    module, *arguments = command.words[2:]
    if f"{module}.py" in CODE:
        return  # a block of these pages, which other tests run
    if module == "pytest":
        assert all((documents.ROOT / word).exists() for word in arguments if word.startswith("tests/"))
        return
    assert module.partition(".")[0] in OURS and importlib.util.find_spec(module), module
    monkeypatch.chdir(documents.ROOT)
    if module == "mmcl_jax.main":
        check_main(arguments)
        return
    if not arguments and command.page != "docs/experiments.md":
        return  # the name of a command in the text
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(Parsed) as parsed, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the module was imported before
        runpy.run_module(module, run_name="__main__")
    config = next((word.removeprefix("--config=") for word in arguments if word.startswith("--config=")), None)
    if config:
        check_config(config, parsed.value.rest)


def check_main(arguments: list[str]) -> None:
    """Whether the main command would take these arguments."""
    import mmcl_jax.main  # noqa: F401  (defines the flags)

    known = {flag.name: flag for flag in flags.FLAGS.flags_by_module_dict()["mmcl_jax.main"]}
    config = None
    overrides = []
    for word in arguments:
        name, _, value = word.removeprefix("--").partition("=")
        assert word.startswith("--") and "=" in word, word
        if name.startswith("config."):
            overrides.append(word)
        elif name == "config":
            config = value
        else:
            copy.deepcopy(known[name]).parse(value)
    if config != "..." and config is not None:
        check_config(config, overrides)


def check_config(given: str, overrides: list[str]) -> None:
    """Whether a config of the package, by path or by name, or of these pages takes the arguments and has the keys."""
    path, colon, argument = given.partition(":")
    module = runpy.run_path(config_files.locate(path)) if path not in CODE else _run(path)
    config = module["get_config"](argument) if colon else module["get_config"]()
    for word in overrides:
        assert word.startswith("--config."), word
        assert word.removeprefix("--config.").partition("=")[0] in keys(config), word


def _run(name: str) -> dict:
    namespace = {"__name__": "block"}
    exec(compile(CODE[name], name, "exec"), namespace)
    return namespace


def keys(config, prefix: str = "") -> list[str]:
    """The keys of a config and of its parts, as the command line writes them."""
    found = []
    for name, value in config.items():
        found += keys(value, f"{prefix}{name}.") if hasattr(value, "items") else [prefix + name]
    return found


def test_make_targets_and_variables_exist():
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    found = [command for command in COMMANDS if command.words[0] == "make"]
    assert len(found) > 15
    for command in found:
        for word in command.words[1:]:
            name, equals, _ = word.partition("=")
            assert f"$({name})" in MAKEFILE or f"$(if $({name})" in MAKEFILE if equals else name in targets, command


def test_every_make_target_is_documented_in_its_help():
    help_text = "\n".join(re.findall(r"@echo \"(.*)\"", MAKEFILE))
    internal = {"help", "setup-tests"}
    for target in set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE)) - internal:
        assert target in help_text, target


def test_extras_exist():
    extras = PYPROJECT["project"]["optional-dependencies"]
    told = [" ".join(command.words) for command in COMMANDS if command.words[0] == "pip"]
    named = {name for words in told for names in re.findall(r"\.\[([\w,]+)\]", words) for name in names.split(",")}
    assert named and named <= set(extras)
    page = documents.read(documents.ROOT / "docs" / "getting-started.md")
    table = [line for line in page.splitlines() if line.startswith("| `")]
    assert all(any(f"`{name}`" in line.split("|")[1] for line in table) for name in extras)


def test_every_config_key_is_explained():
    told = "\n".join(documents.read(page) for page in documents.SITE)
    for key in keys(run_config.get_config()):
        assert f"`{key}`" in told, key


def test_python_blocks_are_files_that_tests_run():
    tested = {
        "classify.py",
        "classify_folder.py",
        "with_onnx_runtime.py",
        "watch_poses.py",
        "deploy_jax.py",
        "deploy_onnx.py",
        "own_data.py",
        "my_run.py",
        "my_records.py",
        "configs/my_dataset.py",
        documents.BACKBONE_FILE,
    }
    assert set(CODE) == tested | {documents.BACKBONE_FILE}


@pytest.mark.slow
def test_own_data_is_prepared_trained_and_evaluated(tmp_path, monkeypatch):
    """The README's script on random poses, then that of the first page with a model that compiles fast."""
    documents.add_backbone(monkeypatch)
    monkeypatch.setitem(BACKBONES, "ctrgcn", BACKBONES["tiny_gcn"])
    random = np.random.default_rng(0)
    poses = random.normal(320, 50, (12, 20, 1, 17, 3)).astype(np.float32)
    np.savez(tmp_path / "poses.npz", poses=poses, labels=np.arange(12) % 2, subjects=1 + np.arange(12) // 2 % 3)
    monkeypatch.chdir(tmp_path)
    _run("own_data.py")
    records = Records("data/own")
    assert len(records) == 12
    assert len(records.select("xsub", "train")) == 8 and len(records.select("xsub", "test")) == 4
    _run("my_run.py")
    assert runs.read_scores(tmp_path / "workdir/own_from_python")["scores"].shape == (4, 2)
    assert len(runs.read_rows(tmp_path / "workdir/own_from_python")) == 10


def test_citation_names_the_paper_and_this_version():
    citation = yaml.safe_load(documents.read(documents.ROOT / "CITATION.cff"))
    assert citation["preferred-citation"]["doi"] in documents.read(documents.README)
    assert citation["version"] == PYPROJECT["project"]["version"]


def test_no_page_loads_from_a_network():
    """What the site's pages themselves embed; the theme's part is set in mkdocs.yml."""
    for page in documents.SITE:
        assert not re.search(r"!\[[^]]*\]\(https?:|<(script|link|iframe|img)\b", documents.read(page)), page
    assert re.search(r"^  font: false\b", (documents.ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
