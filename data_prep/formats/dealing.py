"""Divides groups of clips at random so that every part has about its share of every class.

A group is a person or a long video; its clips are never divided. Groups are dealt out one by one, the largest first,
each to the part that then comes closest to its shares (as scikit-learn's StratifiedGroupKFold does). No part stays
empty while another has two groups.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.formats import splits
from mmcl_jax.data.records import Protocol

VALIDATION = "_validation"  # end of the names of protocols that test with the validation part


@dataclasses.dataclass(frozen=True)
class Division:
    """Names of the clips that train, test and validate; the validation part may be empty."""

    train: frozenset[str]
    test: frozenset[str]
    validation: frozenset[str] = frozenset()


def deal(counts: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """The part of each group, int `[G]`.

    Args:
      counts: int `[G, K]`, clips of each class in each group.
      shares: of the parts, which sum to one.
      seed: decides among groups of the same size.
    """
    totals = np.maximum(counts.sum(axis=0), 1)
    relative, wanted = counts / totals, np.asarray(shares, np.float64)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    parts, filled = np.zeros(len(counts), np.int64), np.zeros((len(wanted), counts.shape[1]))
    for group in order:
        missing = wanted[:, np.newaxis] - filled
        # How much the squared distance to the shares grows where the group is added.
        growth = ((missing - relative[group]) ** 2 - missing**2).sum(axis=1)
        nearest = np.flatnonzero(np.round(growth - growth.min(), 9) == 0)
        parts[group] = nearest[np.argmin(filled[nearest] @ relative[group])]
        filled[parts[group]] += relative[group]
    for part in range(len(wanted)):  # a share smaller than a group: the smallest group that can be spared
        members = np.bincount(parts, minlength=len(wanted))
        if not members[part] and members.max(initial=0) > 1:
            spare = [group for group in order if members[parts[group]] > 1]
            parts[min(spare, key=lambda group: counts[group].sum())] = part
    return parts


def random_division(
    groups: Mapping[str, str], labels: Mapping[str, str], test: float, validation: float, seed: int
) -> Division:
    """A division at random by group.

    Args:
      groups, labels: of each clip, by its name.
      test: share of the clips that test.
      validation: share of the clips that validate.
      seed: of the draw.
    """
    shares = [1 - test - validation, test, *([validation] if validation else [])]
    parts = _deal_clips(groups, labels, shares, seed)
    return Division(*parts)


def folds(
    groups: Mapping[str, str], labels: Mapping[str, str], number: int, validation: float, seed: int
) -> list[Division]:
    """`number` divisions; each clip tests in one of them. A share `validation` of the other clips validates."""
    tests = _deal_clips(groups, labels, [1 / number] * number, seed)
    divisions = []
    for test in tests:
        others = {name: group for name, group in groups.items() if name not in test}
        train, *rest = (
            _deal_clips(others, labels, [1 - validation, validation], seed) if validation else [frozenset(others)]
        )
        divisions.append(Division(train, test, *rest))
    return divisions


def protocols(divisions: Mapping[str, Division], names: Sequence[str]) -> tuple[dict[str, Protocol], dict[str, int]]:
    """The protocols of divisions by name, and the fold of each clip, for the records.

    With a validation part, NAME tests with the test part and NAME_validation with the validation part; both train with
    the same clips.
    """
    lists = {
        f"{name} {part}": members
        for name, division in divisions.items()
        for part, members in dataclasses.asdict(division).items()
    }
    numbers = splits.number_folds(lists, names)

    def within(members: frozenset[str]) -> tuple[int, ...]:
        return tuple(sorted({numbers[name] for name in members if name in numbers}))

    found: dict[str, Protocol] = {}
    for name, division in divisions.items():
        found[name] = Protocol("fold", within(division.train), None, within(division.test))
        if division.validation:
            found[name + VALIDATION] = Protocol("fold", within(division.train), None, within(division.validation))
    return found, numbers


def _deal_clips(
    groups: Mapping[str, str], labels: Mapping[str, str], shares: Sequence[float], seed: int
) -> list[frozenset[str]]:
    """The names of the clips in each part."""
    rows = {group: row for row, group in enumerate(sorted(set(groups.values())))}
    columns = {label: column for column, label in enumerate(sorted(set(labels.values())))}
    counts = np.zeros((len(rows), len(columns)), np.int64)
    for name, group in groups.items():
        counts[rows[group], columns[labels[name]]] += 1
    parts = deal(counts, shares, seed)
    return [
        frozenset(name for name, group in groups.items() if parts[rows[group]] == part) for part in range(len(shares))
    ]
