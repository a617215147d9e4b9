"""Small trees of files: an input of a reader, as data that can be changed, compared and written to a folder."""

import base64
import dataclasses
import os
import pathlib
import zlib


@dataclasses.dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclasses.dataclass(frozen=True)
class Special:
    """What is neither file nor link: 'folder' or 'pipe'."""

    kind: str


Node = bytes | Link | Special
Tree = dict[str, Node]  # by path, with '/'; names that are not UTF-8 have surrogates, as Python's own paths


def read(folder: pathlib.Path) -> Tree:
    """The files beneath `folder`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def write(tree: Tree, folder: pathlib.Path) -> None:
    """Writes a tree; what no folder can hold, such as a file beneath a file, is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, node in tree.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(node, Link):
                path.symlink_to(node.target)
            elif isinstance(node, Special):
                path.mkdir() if node.kind == "folder" else os.mkfifo(path)
            else:
                path.write_bytes(node)
        except (OSError, ValueError):
            continue


def to_json(tree: Tree) -> dict[str, str | dict[str, str]]:
    """A tree as JSON can store it."""
    stored: dict[str, str | dict[str, str]] = {}
    for name, node in tree.items():
        if isinstance(node, bytes):
            stored[name] = base64.b64encode(zlib.compress(node, 9)).decode()
        else:
            stored[name] = {"link": node.target} if isinstance(node, Link) else {"special": node.kind}
    return stored


def from_json(stored: dict[str, str | dict[str, str]]) -> Tree:
    """The tree that `to_json` stored."""
    tree: Tree = {}
    for name, node in stored.items():
        if isinstance(node, str):
            tree[name] = zlib.decompress(base64.b64decode(node))
        else:
            tree[name] = Link(node["link"]) if "link" in node else Special(node["special"])
    return tree
