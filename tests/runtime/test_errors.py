"""Every error class that users see has one base."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
# Not for users: a benchmark catches it and leaves that contender out.
INTERNAL = {"UnavailableError"}


def test_every_error_class_derives_from_the_base():
    found = {}
    for package in ("mmcl_jax", "data_prep", "experiments"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                    found[node.name] = [base.id for base in node.bases]
    assert {"MMCLError", "PreparationError", "RecordsError", "ScoresError"} <= found.keys()
    stray = [name for name, bases in found.items() if "MMCLError" not in bases]
    assert set(stray) == {"MMCLError", *INTERNAL}
