"""Turns divisions that come as lists of clip names into the folds and protocols of records.

A fold is a group of clips that every list contains completely or not at all. So a few numbers say which clips train and
which test, for any number of lists.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from mmcl_jax.data.records import Protocol

_PART = re.compile(
    r"((?:.*?[-_. \d])?)(train|val|test|eval)(?:ing|val|id(?:ation)?|uation)?((?:[-_. \d].*)?)", re.IGNORECASE
)
_SEPARATORS = "-_. "


def number_folds(splits: Mapping[str, Collection[str]], names: Iterable[str]) -> dict[str, int]:
    """The fold of each clip of `names`. Clips in the same `splits` share a fold; clips in no split have fold 0."""
    members = {split: frozenset(members) for split, members in splits.items()}
    within = {name: tuple(split for split in sorted(members) if name in members[split]) for name in names}
    numbers = {key: number for number, key in enumerate(sorted({(), *within.values()}))}
    return {name: numbers[key] for name, key in within.items()}


def protocols(
    splits: Mapping[str, Collection[str]], folds: Mapping[str, int], num_classes: int | None = None
) -> dict[str, Protocol]:
    """Protocols of `splits`, by name. A pair such as xsub_train and xsub_val becomes one protocol, 'xsub'.

    A clip in both splits of a pair is only tested. A split without a partner is divided from all other clips: it trains
    if its name says so ('train'); otherwise it tests, as the folds of a cross-validation do. 'train1' and 'test1'
    become 'split1'; 'train' and 'test' become 'split'; 'train', 'val' and 'test' become 'split_val' and 'split_test'.

    Args:
      splits: clip names by split.
      folds: the result of `number_folds`.
      num_classes: number of classes of the protocols; None: all.
    """
    within = {split: {folds[name] for name in members if name in folds} for split, members in splits.items()}
    found: dict[str, Protocol] = {}

    def add(name: str, train: set[int], test: set[int]) -> None:
        found[name] = Protocol("fold", tuple(sorted(train - test)), num_classes, tuple(sorted(test)))

    everything = set(folds.values())
    for base, parts in _group(splits).items():
        train = within[parts["train"]] if "train" in parts else None
        tests = {part: within[split] for part, split in parts.items() if part != "train"}
        for part, test in tests.items():
            name = base if len(tests) == 1 else f"{base}_{part}"
            add(name, everything - test if train is None else train, test)
        if not tests:
            add(base, train, everything - train)
    return found


def overlaps(splits: Mapping[str, Collection[str]]) -> dict[tuple[str, str], int]:
    """The number of clip names that a training split shares with its partner, for pairs that share any."""
    found = {}
    for parts in _group(splits).values():
        for part, split in parts.items():
            if part != "train" and "train" in parts:
                found[parts["train"], split] = len(set(splits[parts["train"]]) & set(splits[split]))
    return {pair: count for pair, count in found.items() if count}


def _group(splits: Iterable[str]) -> dict[str, dict[str, str]]:
    """Groups splits by name without the part ('train', 'val', 'test', 'eval'); each group maps parts to splits."""
    groups: dict[str, dict[str, str]] = {}
    for split in sorted(splits, key=lambda split: (_PART.fullmatch(split) is None, split)):
        named = _PART.fullmatch(split)
        base = "_".join(filter(None, (text.strip(_SEPARATORS) for text in named.group(1, 3)))) if named else split
        base = f"split{base}" if base.isdigit() or not base else base
        part = named[2].lower() if named else "test"
        while part in groups.get(base, {}) or (named is None and base in groups):
            base += "_"
        groups.setdefault(base, {})[part] = split
    return groups
