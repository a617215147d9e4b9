"""Files are missing, have other names or contents, or are links, folders and pipes."""

from tests.fuzz.mutations.kinds import Mutation, into, pick
from tests.fuzz.trees import Link, Special

MUTATIONS: dict[str, Mutation] = {}
_mutation = into(MUTATIONS)


@_mutation("tree", removes=True)
def remove_a_file(rng, tree):
    del tree[pick(rng, list(tree))]
    return tree


@_mutation("tree", removes=True)
def rename_a_file(rng, tree):
    name = pick(rng, list(tree))
    folder, _, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    renamed = pick(
        rng,
        (
            f"\udce9{base}",
            f"{base.upper()}",
            f"{'x' * 200}{dot}{suffix}",
            f".{base}",
            f"{base}.txt",
            f" {base}",
            f"{stem}\n{dot}{suffix}",
            f"a b{dot}{suffix}",
            f"{stem}2{dot}{suffix}",
        ),
    )
    tree[f"{folder}/{renamed}" if folder else renamed] = tree.pop(name)
    return tree


@_mutation("tree")
def link_a_file(rng, tree):
    name = pick(rng, list(tree))
    base = name.rpartition("/")[2]
    tree[name] = Link(pick(rng, (base, "nowhere", "/dev/null", "/dev/zero", ".", "/etc/hostname")))
    return tree


@_mutation("tree")
def folder_for_a_file(rng, tree):
    tree[pick(rng, list(tree))] = Special("folder")
    return tree


@_mutation("tree")
def pipe_for_a_file(rng, tree):
    tree[pick(rng, list(tree))] = Special("pipe")
    return tree


@_mutation("tree")
def swap_files(rng, tree):
    first, second = pick(rng, list(tree)), pick(rng, list(tree))
    tree[first], tree[second] = tree[second], tree[first]
    return tree


@_mutation("tree")
def copy_a_file(rng, tree):
    name = pick(rng, list(tree))
    folder, _, base = name.rpartition("/")
    prefix = f"{folder}/" if folder else ""
    tree[pick(rng, (f"{prefix}copy/{base}", f"{prefix}x{base}", f"{prefix}{base}~"))] = tree[name]
    return tree
