"""Many damaged inputs: which ones, by seed; their verdicts; a failing one made small; the report."""

import collections
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator

import numpy as np

from tests.fuzz import mutations, readers, trees
from tests.fuzz.mutations import MUTATIONS, Step
from tests.fuzz.trees import Tree
from tests.fuzz.verdicts import Verdict
from tests.fuzz.workers import Worker, judge_all

_TRIALS = 150  # runs that shrinking an input may take
_SHARE_OF_STRUCTURE, _SHARE_OF_TREE = 0.5, 0.1


@dataclasses.dataclass(frozen=True)
class Input:
    """A damaged input: a reader's sound tree after some mutations."""

    reader: str
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return f"{self.reader} " + ", ".join(f"{step.mutation}:{step.seed}" for step in self.steps)


def draw(seed: int, number: int, names: list[str], formats: dict[str, set[str]]) -> Input:
    """Input `number` of the campaign `seed`; it depends on nothing else.

    Args:
      seed, number: of the campaign, and within it.
      names: the readers to draw from.
      formats: of the files in the sound tree of each reader.
    """
    rng = np.random.default_rng([seed, number])
    weights = np.array([readers.READERS[name].weight for name in names])
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    by_kind: dict[str, list[str]] = {"": [], "tree": [], "structure": []}
    for mutation, known in MUTATIONS.items():
        if known.format in ("", "tree"):
            by_kind[known.format].append(mutation)
        elif known.format in formats[name]:
            by_kind["structure"].append(mutation)
    steps = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 2, 3]))):
        share = rng.random()
        kind = "tree" if share < _SHARE_OF_TREE else "structure" if share < _SHARE_OF_TREE + _SHARE_OF_STRUCTURE else ""
        choices = by_kind[kind] or by_kind[""]
        steps.append(Step(choices[int(rng.integers(len(choices)))], int(rng.integers(2**31))))
    return Input(name, tuple(steps))


def formats(names: list[str], folder: pathlib.Path) -> dict[str, set[str]]:
    """The formats of each reader's files."""
    found = {}
    for name in names:
        made = folder / name
        made.mkdir(parents=True)
        found[name] = mutations.formats_of(readers.sound_tree(name, made))
    return found


def run(
    seed: int, inputs: int, names: list[str], folder: pathlib.Path, processes: int = 1
) -> Iterator[tuple[Input, Verdict]]:
    """Draws and judges inputs, in order."""
    known = formats(names, folder)
    drawn = [draw(seed, number, names, known) for number in range(inputs)]
    tasks = ((one.reader, list(one.steps), None) for one in drawn)
    yield from zip(drawn, judge_all(tasks, processes), strict=True)


def shrink(failed: Input, verdict: Verdict, sound: Tree) -> tuple[Tree, Verdict]:
    """The smallest input that was found to fail in the same way, as a tree, and its verdict."""
    worker = Worker()

    def fails(steps: list[Step], tree: Tree | None = None) -> Verdict | None:
        found = worker.judge((failed.reader, steps, tree))
        return found if found.kind == verdict.kind else None

    try:
        steps = list(failed.steps)
        for step in failed.steps if len(steps) > 1 else ():
            fewer = [other for other in steps if other is not step]
            if fewer and fails(fewer):
                steps = fewer
        tree = mutations.apply(sound, steps)
        trials = itertools.count()
        best = verdict
        if mutations.removes(steps):  # a tree by itself does not say that something was removed
            return tree, best
        for name in sorted(tree.keys() & sound.keys()):
            if tree[name] == sound[name] or not isinstance(tree[name], bytes) or not isinstance(sound[name], bytes):
                continue
            for candidate in _simpler(tree, name, sound[name]):
                if next(trials) >= _TRIALS:
                    break
                found = fails([], candidate)
                if found:
                    tree, best = candidate, found
        return tree, best
    finally:
        worker.close()


def _simpler(tree: Tree, name: str, sound: bytes) -> Iterator[Tree]:
    """Trees in which the file `name` is more like the sound one, or shorter; each from the first tree."""
    contents = tree[name]
    assert isinstance(contents, bytes)
    if len(contents) == len(sound):
        differing = [place for place, (one, other) in enumerate(zip(contents, sound, strict=True)) if one != other]
        parts = len(differing) // 2
        while parts:
            for start in range(0, len(differing), parts):
                reverted = bytearray(contents)
                for place in differing[start : start + parts]:
                    reverted[place] = sound[place]
                yield {**tree, name: bytes(reverted)}
            parts //= 2
    else:
        for share in (16, 8, 4, 2):
            yield {**tree, name: contents[: len(contents) // share]}


def keep(folder: pathlib.Path, name: str, why: str, tree: Tree) -> pathlib.Path:
    """Stores an input so that it is tried again with every test: `folder`/NAME.json."""
    stored = {"reader": name, "why": why, "files": trees.to_json(tree)}
    folder.mkdir(parents=True, exist_ok=True)
    number = next(number for number in itertools.count(1) if not (folder / f"{name}_{number}.json").exists())
    path = folder / f"{name}_{number}.json"
    path.write_text(json.dumps(stored, indent=1) + "\n")
    return path


def read_kept(path: pathlib.Path) -> tuple[str, Tree]:
    """Reader and tree of a kept input."""
    stored = json.loads(path.read_text())
    return stored["reader"], trees.from_json(stored["files"])


class Report:
    """Counts of verdicts, and what was accepted though it was changed, by kind and with the reason."""

    def __init__(self):
        self.verdicts: collections.Counter[str] = collections.Counter()
        self._changed: dict[str, collections.Counter[str]] = {}
        self._inputs: collections.Counter[str] = collections.Counter()

    def add(self, judged: Input, verdict: Verdict) -> None:
        self.verdicts[verdict.kind] += 1
        self._inputs[judged.reader] += 1
        if verdict.kind == "changed":
            kinds = " + ".join(sorted({step.mutation for step in judged.steps}))
            self._changed.setdefault(judged.reader, collections.Counter())[kinds] += 1

    def lines(self) -> list[str]:
        total = self.verdicts.total()
        lines = [f"{total:,} inputs: " + ", ".join(f"{count:,} {kind}" for kind, count in self.verdicts.most_common())]
        lines.append("accepted though changed, by reader:")
        for name, kinds in sorted(self._changed.items()):
            shown = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(6))
            more = f", and {len(kinds) - 6} other kinds" if len(kinds) > 6 else ""
            lines.append(f"  {name}, {kinds.total()} of {self._inputs[name]}: {readers.READERS[name].unnoticed}")
            lines.append(f"    {shown}{more}")
        return lines
