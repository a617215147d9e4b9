"""The documents as a reader meets them: their pages, code blocks, commands and links."""

import dataclasses
import json
import pathlib
import re
import shlex
import sys
import types
from collections.abc import Iterator

import pytest
import yaml

from mmcl_jax.models import BACKBONES

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"
SITE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [README, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "experiments/README.md")), *SITE]
BACKBONE_FILE = "mmcl_jax/models/tiny_gcn.py"
_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*(?:python -m|make|pip install) [^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FILE_NAME = re.compile(r"# ([\w/.]+\.py)\b")
# What a shell would put in place of a job array's variables.
_JOB = {"$SLURM_ARRAY_TASK_COUNT": "64", "$SLURM_ARRAY_TASK_ID": "1", "$JOB_COMPLETION_INDEX": "1"}


@dataclasses.dataclass(frozen=True)
class Command:
    """A documented command: the page that has it, and its words."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def read(page: pathlib.Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: pathlib.Path) -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks of a page."""
    return [(found["language"], found["text"]) for found in _BLOCK.finditer(read(page))]


def code_blocks() -> dict[str, str]:
    """The Python blocks of all pages by the file name in their first line; a block without one has its own text."""
    python = [text for page in PAGES for language, text in blocks(page) if language == "python"]
    return {found[1] if (found := _FILE_NAME.match(text)) else text: text for text in python}


def commands() -> list[Command]:
    """Every command of the pages once: of their blocks, of Kubernetes' jobs, and of the text."""
    found = {}
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        for language, text in blocks(page):
            lines = _shell_lines(text) if not language else _strings(yaml.safe_load(text)) if language == "yaml" else ()
            for line in lines:
                found |= dict.fromkeys(Command(name, words) for words in _commands(line))
        for inline in _INLINE.findall(_BLOCK.sub("", read(page))):
            found |= dict.fromkeys(Command(name, words) for words in _commands(inline))
    return list(found)


def links(page: pathlib.Path) -> list[str]:
    """Where a page's relative links lead."""
    return [target for target in _LINK.findall(_BLOCK.sub("", read(page))) if "://" not in target]


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def add_backbone(patch: pytest.MonkeyPatch) -> None:
    """Does what the page says for a backbone of one's own: its file, as a module, and its line in BACKBONES."""
    name = BACKBONE_FILE.removesuffix(".py").replace("/", ".")
    module = types.ModuleType(name)
    patch.setitem(sys.modules, name, module)
    exec(compile(code_blocks()[BACKBONE_FILE], BACKBONE_FILE, "exec"), module.__dict__)
    assert '`"tiny_gcn": tiny_gcn`' in read(ROOT / "docs" / "own-backbone.md")
    patch.setitem(BACKBONES, "tiny_gcn", module.tiny_gcn)


def _shell_lines(text: str) -> Iterator[str]:
    """The lines of a shell block, joined where one is continued."""
    yield from text.replace("\\\n", " ").splitlines()


def _strings(value) -> Iterator[str]:
    """The strings of a YAML document."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
    elif isinstance(value, str):
        yield value


def _commands(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a line: of several joined by &&, of a program that starts another, of one that is quoted."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a tree of folders, a drawing
        return
    for part in " ".join(json.dumps(word) if " " in word else word for word in words).split(" && "):
        words = [_substituted(word) for word in shlex.split(part)]
        for word in words:
            if " " in word and "python -m " in word:
                yield from _commands(word[word.index("python -m ") :])
        starts = [
            number for number, word in enumerate(words[:-1]) if word.endswith("python") and words[number + 1] == "-m"
        ]
        if starts:
            yield ("python", *words[starts[0] + 1 :])
        elif (rest := [word for word in words if not re.match(r"[A-Z_]+=", word)])[:1] == ["make"]:
            yield tuple(words[words.index("make") :])
        elif rest[:2] == ["pip", "install"]:
            yield tuple(rest)


def _substituted(word: str) -> str:
    for variable, value in _JOB.items():
        word = word.replace(variable, value)
    return word
