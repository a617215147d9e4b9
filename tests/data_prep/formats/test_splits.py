"""Lists of names become folds and protocols that select the same clips."""

import numpy as np
import pytest

from data_prep.formats import splits

NAMES = [f"clip{number}" for number in range(10)]


def selected(lists: dict[str, list[str]]) -> dict[str, tuple[str, str]]:
    """The numbers of the clips that train and test, by protocol."""
    folds = splits.number_folds(lists, NAMES)
    index = {"label": np.zeros(len(NAMES)), "fold": np.array([folds[name] for name in NAMES])}
    masks = {name: protocol.masks(index) for name, protocol in splits.protocols(lists, folds).items()}
    return {
        name: tuple("".join(str(row) for row in np.flatnonzero(mask)) for mask in pair) for name, pair in masks.items()
    }


def clips(numbers: str) -> list[str]:
    return [f"clip{number}" for number in numbers]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        (
            {"xsub_train": "012", "xsub_val": "345", "xview_train": "024", "xview_val": "13"},
            {"xsub": ("012", "345"), "xview": ("024", "13")},
        ),
        ({"train": "01", "val": "23"}, {"split": ("01", "23")}),
        ({"train": "01", "val": "23", "test": "45"}, {"split_val": ("01", "23"), "split_test": ("01", "45")}),
        (
            {"train1": "01", "test1": "23", "train2": "23", "test2": "01"},
            {"split1": ("01", "23"), "split2": ("23", "01")},
        ),
        ({"ntu60_xsub_train": "0", "ntu60_xsub_val": "1"}, {"ntu60_xsub": ("0", "1")}),
        ({"Training-A": "0", "Testing-A": "1"}, {"A": ("0", "1")}),
        ({"a_training_x": "0", "a_validation_x": "1"}, {"a_x": ("0", "1")}),
        ({"trainval": "0123", "test": "45"}, {"split": ("0123", "45")}),
        ({"train": "012"}, {"split": ("012", "3456789")}),
        ({"test": "012"}, {"split": ("3456789", "012")}),
        ({"fold_a": "012", "fold_b": "34"}, {"fold_a": ("3456789", "012"), "fold_b": ("01256789", "34")}),
        ({"contest": "01", "latest": "2"}, {"contest": ("23456789", "01"), "latest": ("013456789", "2")}),
        ({"xsub_train": "0123", "xsub_val": "345"}, {"xsub": ("012", "345")}),
        ({"a_train": "0", "a_val": "1", "a": "2"}, {"a": ("0", "1"), "a_": ("013456789", "2")}),
        ({"x_train": "0", "x-train": "1", "x_val": "2"}, {"x": ("1", "2"), "x_": ("0", "123456789")}),
        ({"train": "", "val": "1"}, {"split": ("", "1")}),
        ({}, {}),
    ],
)
def test_protocols(lists, expected):
    assert selected({split: clips(numbers) for split, numbers in lists.items()}) == expected


def test_names_that_are_no_clips_do_no_harm():
    assert selected({"train": [*clips("01"), "x", ""], "val": [*clips("2"), "y"]}) == {"split": ("01", "2")}


def test_folds_are_few_and_in_a_fixed_order():
    lists = {"a_train": clips("01234"), "a_val": clips("567"), "b_train": clips("05"), "b_val": clips("16")}
    folds = splits.number_folds(lists, NAMES)
    assert folds == splits.number_folds(dict(reversed(lists.items())), NAMES)
    assert len(set(folds.values())) == 7 and folds["clip8"] == folds["clip9"] == 0
    assert splits.number_folds({}, NAMES) == dict.fromkeys(NAMES, 0)


def test_overlaps_are_counted():
    lists = {"xsub_train": clips("0123"), "xsub_val": clips("2345"), "b_train": clips("0"), "b_val": clips("1")}
    assert splits.overlaps(lists) == {("xsub_train", "xsub_val"): 2}
