"""How inputs are damaged: bytes, the structure of a format, and files in their tree.

A mutation is a function of a generator of random numbers and of contents (or of a tree). It returns other contents; the
same where it does not apply. It depends on nothing else, so that a name and a seed say what was done. Each module has
those of one format.
"""

import dataclasses

import numpy as np

from tests.fuzz.mutations import (
    arrays,
    json_files,
    matlab_files,
    pickles,
    raw_bytes,
    tars,
    text,
    torch_files,
    whole_trees,
    zips,
)
from tests.fuzz.mutations.kinds import Mutation
from tests.fuzz.trees import Tree

# What a seed draws depends on the order.
MUTATIONS: dict[str, Mutation] = {
    **raw_bytes.MUTATIONS,
    **text.MUTATIONS,
    **json_files.MUTATIONS,
    **pickles.MUTATIONS,
    **arrays.MUTATIONS,
    **zips.MUTATIONS,
    **tars.MUTATIONS,
    **matlab_files.MUTATIONS,
    **torch_files.MUTATIONS,
    **whole_trees.MUTATIONS,
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One mutation of an input."""

    mutation: str
    seed: int


def format_of(name: str, contents) -> str:
    """The format of a file, by what it begins with; '' if it is none of those that have mutations."""
    if not isinstance(contents, bytes) or not contents:
        return ""
    if contents[:2] == b"PK":
        return "torch" if name.endswith((".pt", ".pth")) else "npz" if name.endswith(".npz") else "zip"
    if contents[:2] == b"\x1f\x8b" or contents[:6] == b"\xfd7zXZ\0" or contents[257:262] == b"ustar":
        return "tar"
    if contents[:6] == b"\x93NUMPY":
        return "npy"
    if contents[:6] == b"MATLAB":
        return "mat"
    if contents[:1] in b"{[":
        return "json"
    if contents[:1] == b"\x80" and contents[-1:] == b".":
        return "pickle"
    return "text" if max(contents) < 128 and min(contents) >= 9 else ""


def formats_of(tree: Tree) -> set[str]:
    """The formats of a tree's files."""
    return {format_of(name, node) for name, node in tree.items()} - {""}


def apply(tree: Tree, steps: list[Step]) -> Tree:
    """The tree after these mutations."""
    for step in steps:
        mutation, rng = MUTATIONS[step.mutation], np.random.default_rng(step.seed)
        if mutation.format == "tree":
            tree = tree and mutation.apply(rng, dict(tree))
            continue
        fitting = [
            name
            for name, node in tree.items()
            if isinstance(node, bytes) and mutation.format in ("", format_of(name, node))
        ]
        if fitting:
            name = fitting[int(rng.integers(len(fitting)))]
            tree = {**tree, name: mutation.apply(rng, tree[name])}
    return tree


def removes(steps: list[Step]) -> bool:
    """Whether clips may be missing after these mutations."""
    return any(MUTATIONS[step.mutation].removes for step in steps)
