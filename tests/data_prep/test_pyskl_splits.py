"""Which of pyskl's clips train and which test: by splits of the source, of a file, and at random."""

import json
import re

import numpy as np
import pytest

from mmcl_jax.runtime.errors import PreparationError
from tests.helpers.ntu_formats import set_aside
from tests.helpers.pyskl_files import dataset, pose, prepare

GOOD = pose("good")


def test_a_clip_on_both_sides_only_tests(tmp_path, capsys):
    opened = prepare(tmp_path, dataset([pose("a"), pose("b"), pose("c")], train=["a", "b"], val=["b", "c"]))
    assert opened.select("split", "train").tolist() == [0] and opened.select("split", "test").tolist() == [1, 2]
    assert "NOTE: 1 clip is in both train and val, and used for testing only" in capsys.readouterr().out


@pytest.mark.parametrize("value", [{"annotations": [GOOD]}, {"annotations": [GOOD], "split": {}}])
def test_no_split_is_said(tmp_path, capsys, value):
    prepare(tmp_path, value)
    assert "NOTE: the source has no split" in capsys.readouterr().out


def test_a_split_that_is_none_is_set_aside(tmp_path):
    prepare(tmp_path, {"annotations": [GOOD], "split": ["good"]})
    assert set_aside(tmp_path / "out") == {"split": "a list, expected a dict of lists of names"}


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["a.mp4", "b.mp4"], "'a.mp4' in the split, 'a' among the clips; the names differ by '.mp4'"),
        (["videos/a"], "the names differ by 'videos/'"),
        (["x"], "'x' in the split, 'a' among the clips. Make them the same, or divide the clips with --split 0.25"),
    ],
)
def test_a_split_of_other_names_is_refused(tmp_path, names, hint):
    with pytest.raises(PreparationError, match=re.escape(hint)):
        prepare(tmp_path, dataset([pose("a"), pose("b", 1)], train=["a", "b"], val=names))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.pkl"]


@pytest.mark.parametrize("value", [[pose("a"), pose("b", 1)], dataset([pose("a"), pose("b", 1)], train=["a", "b"])])
def test_a_split_with_nothing_to_train_or_test_is_noted(tmp_path, capsys, value):
    prepare(tmp_path, value)
    assert "NOTE: a protocol has no clip to train or none to test with; divide the clips with --split" in (
        capsys.readouterr().out
    )


def test_a_division_at_random(tmp_path):
    poses = [pose(f"v{number:02d}", number % 3) for number in range(24)]
    opened = prepare(tmp_path, poses, split="0.25")
    test = opened.select("split", "test")
    assert np.bincount(opened.index["label"][test]).tolist() == [2, 2, 2]
    assert sorted([*test, *opened.select("split", "train")]) == list(range(24))
    again = prepare(tmp_path, dataset(poses[::-1]), split="0.25", overwrite=True)
    assert set(again.index["name"][again.select("split", "test")]) == set(opened.index["name"][test])
    with pytest.raises(PreparationError, match=r"--split 1.5: expected a share between 0 and 1"):
        prepare(tmp_path, poses, split="1.5", overwrite=True)


def test_a_division_from_a_file(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["a"], "test": ["b"]}))
    opened = prepare(tmp_path, [pose("a"), pose("b", 1), pose("c")], split=str(path))
    assert opened.select("split", "train").tolist() == [0] and opened.select("split", "test").tolist() == [1]
    for wrong, message in (
        ("{", "not a readable JSON"),
        ("[]", "expected lists"),
        ('{"train": [1]}', "expected lists"),
    ):
        path.write_text(wrong)
        with pytest.raises(PreparationError, match=message):
            prepare(tmp_path, [pose("a")], split=str(path), overwrite=True)
