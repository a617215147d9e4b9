"""No module that a data file names is imported, wherever the file puts the name."""

import contextlib
import json
import shutil
import sys

import pytest

from mmcl_jax.data.records import Records, RecordsError
from mmcl_jax.data.records.reading import _CLASSES

_EVIL = "stranger.Feature"
_DICT = "tensorflow_datasets.core.features.features_dict.FeaturesDict"


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A module `stranger` that can be imported; the file that exists once it was."""
    folder, ran = tmp_path / "modules", tmp_path / "ran"
    folder.mkdir()
    (folder / "stranger.py").write_text(f"open({str(ran)!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(folder))
    yield ran
    sys.modules.pop("stranger", None)


@pytest.fixture
def copied(tiny_records, tmp_path):
    folder = tmp_path / "records"
    shutil.copytree(tiny_records, folder)
    return folder


def _change(path, change) -> None:
    contents = json.loads(path.read_text())
    path.write_text(json.dumps(change(contents) or contents))


def _legacy(_):
    return {"type": _DICT, "content": {"name": {"type": _EVIL, "content": {}}}}


def _json_feature(_):
    inner = json.dumps({"name": {"type": _EVIL, "content": {}}})
    return {"pythonClassName": _DICT, "jsonFeature": {"json": inner}}


def _snake_json_feature(_):
    inner = json.dumps({"name": {"type": _EVIL, "content": {}}})
    return {"python_class_name": _DICT, "json_feature": {"json": inner}}


def _nested(contents):
    inner = {"pythonClassName": _EVIL, "tensor": {"shape": {}, "dtype": "int64"}}
    contents["featuresDict"]["features"]["label"] = {
        "pythonClassName": _DICT,
        "featuresDict": {"features": {"deep": inner}},
    }


FEATURES = {
    "top": lambda contents: contents.update(pythonClassName=_EVIL),
    "snake": lambda contents: {"python_class_name": _EVIL, "featuresDict": contents["featuresDict"]},
    "inner": lambda contents: contents["featuresDict"]["features"]["name"].update(pythonClassName=_EVIL),
    "nested": _nested,
    "legacy": _legacy,
    "legacy_top": lambda _: {"type": _EVIL, "content": {}},
    "json": _json_feature,
    "snake_json": _snake_json_feature,
    "not_registered": lambda contents: contents.update(
        pythonClassName="tensorflow_datasets.core.features.sequence_feature.Sequence"
    ),
}


@pytest.mark.parametrize("change", FEATURES.values(), ids=FEATURES)
def test_features_json_that_names_another_class_is_refused_unread(copied, stranger, change):
    path = copied / "skeletons" / "features.json"
    _change(path, change)
    with pytest.raises(RecordsError, match="not a class of records") as caught:
        Records(copied)
    assert str(path) in str(caught.value)
    assert not stranger.exists() and "stranger" not in sys.modules


@pytest.mark.parametrize("kind", ["images", "text/stand_in/holding/token_ids"])
def test_images_and_text_are_checked_as_well(copied, stranger, kind):
    _change(copied / kind / "features.json", FEATURES["inner"])
    records = Records(copied)
    with pytest.raises(RecordsError, match=r"stranger\.Feature"):
        records.clips_without([0], kind.removeprefix("text/"))
    assert not stranger.exists()


def test_dataset_info_that_brings_features_of_its_own_is_refused(copied, stranger):
    path = copied / "skeletons" / "dataset_info.json"
    _change(path, lambda contents: contents.update(features={"pythonClassName": _EVIL, "tensor": {}}))
    with pytest.raises(RecordsError, match=r"dataset_info\.json.*stranger\.Feature"):
        Records(copied)
    assert not stranger.exists()


def test_every_other_string_of_the_files_imports_nothing(copied, stranger):
    def renamed(value):
        if isinstance(value, dict):
            return {key: renamed(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [renamed(inner) for inner in value]
        return "stranger" if isinstance(value, str) and value not in _CLASSES else value

    for path in (copied / "skeletons").glob("*.json"):
        original = path.read_text()
        stored = json.loads(original)
        changes = [{key: renamed(value)} for key, value in stored.items()] + [{"moduleName": "stranger"}]
        for change in changes:
            path.write_text(json.dumps({**stored, **change}))
            with contextlib.suppress(RecordsError):
                Records(copied).skeleton(0)
        path.write_text(original)
    assert not stranger.exists()
    Records(copied).skeleton(0)


@pytest.mark.parametrize("contents", [b"[" * 100_000, b"\xff\xfe{}", b"{", b'"' + b"x" * 100 + b'"', b"null"])
def test_a_features_json_that_is_no_json_is_an_error_that_names_it(copied, contents):
    (copied / "skeletons" / "features.json").write_bytes(contents)
    with pytest.raises(RecordsError, match="skeletons"):
        Records(copied)


def test_what_we_write_names_all_the_known_classes_and_no_other(tiny_records):
    written = set()
    for path in tiny_records.rglob("features.json"):
        written |= {part for part in path.read_text().split('"') if part.startswith("tensorflow_datasets.")}
    assert written == _CLASSES
