"""The README's code blocks, as a reader would copy them."""

import pathlib
import re
import sys
import types

import pytest

from mmcl_jax.models import BACKBONES

README = pathlib.Path(__file__).parents[2] / "README.md"
BACKBONE_FILE = "mmcl_jax/models/tiny_gcn.py"
_BLOCK = re.compile(r"^```python\n# (?P<name>[\w/.]+\.py)\b.*?\n```$", re.MULTILINE | re.DOTALL)


def code_blocks() -> dict[str, str]:
    """The Python blocks by the file name in their first line."""
    text = README.read_text(encoding="utf-8")
    return {found["name"]: found[0].removeprefix("```python\n").removesuffix("```") for found in _BLOCK.finditer(text)}


def add_backbone(patch: pytest.MonkeyPatch) -> None:
    """Does what the README says for a backbone of one's own: its file, as a module, and its line in BACKBONES."""
    name = BACKBONE_FILE.removesuffix(".py").replace("/", ".")
    module = types.ModuleType(name)
    patch.setitem(sys.modules, name, module)
    exec(compile(code_blocks()[BACKBONE_FILE], BACKBONE_FILE, "exec"), module.__dict__)
    assert '`"tiny_gcn": tiny_gcn`' in README.read_text(encoding="utf-8")
    patch.setitem(BACKBONES, "tiny_gcn", module.tiny_gcn)
