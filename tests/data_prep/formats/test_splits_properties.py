"""Folds and protocols of any lists: every clip has one fold, and no clip both trains and tests."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_prep.formats import splits

NAMES = [f"clip{number}" for number in range(12)]
SPLITS = ("xsub_train", "xsub_val", "xview_train", "xview_test", "train", "val", "test", "fold_1", "fold_2", "odd")
# Some names are in the lists and no clips of these records.
lists = st.dictionaries(st.sampled_from(SPLITS), st.lists(st.sampled_from([*NAMES, "absent", ""]), unique=True))


def masks(chosen: dict[str, list[str]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Whether each clip of `NAMES` trains and whether it tests, by protocol."""
    folds = splits.number_folds(chosen, NAMES)
    index = {"label": np.zeros(len(NAMES)), "fold": np.array([folds[name] for name in NAMES])}
    return {name: protocol.masks(index) for name, protocol in splits.protocols(chosen, folds).items()}


@given(lists)
def test_every_clip_has_one_fold_and_lists_have_folds_whole(chosen):
    folds = splits.number_folds(chosen, NAMES)
    assert list(folds) == NAMES
    assert sorted(set(folds.values())) == sorted(set(folds.values()) | set(range(1, max(folds.values()) + 1)))
    for first in NAMES:
        for second in NAMES:
            together = all((first in members) == (second in members) for members in chosen.values())
            assert (folds[first] == folds[second]) == together
    in_none = {name for name in NAMES if not any(name in members for members in chosen.values())}
    assert {name for name, fold in folds.items() if fold == 0} == in_none


@given(lists)
def test_no_clip_trains_and_tests(chosen):
    for train, test in masks(chosen).values():
        assert not (train & test).any()


@given(lists)
def test_every_clip_of_a_list_is_in_its_protocol(chosen):
    """Pairs hold the clips of both lists; a list without a partner divides all clips."""
    found = masks(chosen)
    seen = np.zeros(len(NAMES), bool)
    for train, test in found.values():
        seen |= train | test
    listed = np.array([any(name in members for members in chosen.values()) for name in NAMES])
    assert (seen | ~listed).all()
    whole = [train | test for name, (train, test) in found.items() if name in ("fold_1", "fold_2", "odd")]
    assert all(mask.all() for mask in whole)


@given(lists)
def test_a_pair_trains_and_tests_what_its_lists_say(chosen):
    pair = {split: members for split, members in chosen.items() if split.startswith("xsub")}
    if len(pair) < 2:
        return
    train, test = masks(chosen)["xsub"]
    assert {name for name, there in zip(NAMES, test, strict=True) if there} == set(pair["xsub_val"]) & set(NAMES)
    only_train = set(pair["xsub_train"]) - set(pair["xsub_val"])
    assert {name for name, there in zip(NAMES, train, strict=True) if there} == only_train & set(NAMES)
    common = len(set(pair["xsub_train"]) & set(pair["xsub_val"]))
    assert splits.overlaps(chosen).get(("xsub_train", "xsub_val"), 0) == common


@given(lists, st.randoms(use_true_random=False))
def test_the_order_of_lists_and_names_is_of_no_account(chosen, random):
    splits_again, names_again = list(chosen.items()), list(NAMES)
    random.shuffle(splits_again)
    random.shuffle(names_again)
    again = {split: random.sample(members, len(members)) for split, members in splits_again}
    assert splits.number_folds(again, names_again) == splits.number_folds(chosen, NAMES)
