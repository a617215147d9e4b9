"""Writing records: faults are refused or set aside, and a failure on the way changes nothing."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from mmcl_jax.data import records
from mmcl_jax.data.records import checks, writing
from mmcl_jax.runtime.errors import PreparationError, plain_errors
from mmcl_jax.runtime.locks import LockedError, exclusive
from mmcl_jax.runtime.scratch import MARK
from tests.helpers import locks_and_scratch
from tests.helpers.folders import contents
from tests.helpers.made_up_records import TEXT_SET, jpeg, make_clip, make_info

ROOT = pathlib.Path(__file__).parents[3]
SMALL = ("--subjects=4",)


def write(out, clips, **options):
    records.write_records(out, make_info(), clips, **options)


def test_same_clips_same_bytes(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name, (make_clip(number) for number in range(5)))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_bytes_do_not_depend_on_the_process(tmp_path):
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2

    write(tmp_path / "out", [make_clip(0), make_clip(1)])
    for folder in ("skeletons", "images", f"text/{TEXT_SET}"):
        (path,) = (tmp_path / "out" / folder).glob("*array_record*")
        reader = array_record_module.ArrayRecordReader(str(path))
        for stored in reader.read_all():
            in_order = tf_example_pb2.Example.FromString(stored).SerializeToString(deterministic=True)
            assert stored == in_order  # the map of a protocol buffer has no order of its own
        reader.close()


def test_several_buffers_and_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_BUFFERED_EXAMPLES", 2)
    monkeypatch.setattr(writing, "_EXAMPLES_PER_SHARD", 3)
    write(tmp_path / "out", (make_clip(number) for number in range(8)))
    assert len(list((tmp_path / "out" / "skeletons").glob("*array_record*"))) == 3
    opened = records.Records(tmp_path / "out")
    for row in range(8):
        np.testing.assert_array_equal(opened.skeleton(row), make_clip(row).skeleton.transpose(1, 0, 2, 3))


def spoilt_skeleton(value, where=np.s_[2, 0, 5, 1]) -> np.ndarray:
    skeleton = make_clip(4).skeleton.copy()
    skeleton[where] = value
    return skeleton


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"skeleton": spoilt_skeleton(np.nan)}, "NaN or infinite values in 1 of 7 frames"),
        ({"skeleton": make_clip(4).skeleton.astype(np.float64) * 1e300}, "NaN or infinite"),
        ({"skeleton": spoilt_skeleton(0, np.s_[:])}, "every joint of every frame is zero"),
        ({"skeleton": np.zeros((0, 1, 20, 3), np.float32)}, "zero frames"),
        ({"skeleton": np.ones((4, 20, 3), np.float32)}, r"shape \(4, 20, 3\)"),
        ({"skeleton": np.ones((4, 0, 20, 3), np.float32)}, r"shape \(4, 0, 20, 3\)"),
        (
            {"skeleton": np.ones((4, 1, 25, 3), np.float32)},
            r"\(25, 3\), layout and channels of the dataset say \(20, 3\)",
        ),
        ({"label": 3}, "label 3, expected 0 to 2"),
        ({"label": -1}, "label -1"),
        ({"label": 1.0}, "label '1.0', expected a whole number"),
        ({"label": "1"}, "label '1', expected a whole number"),
        ({"camera": True}, "camera 'True', expected"),
        ({"subject": 2**63}, "subject beyond 64 bits"),
        (
            {"skeleton": spoilt_skeleton(1e30)},
            r"a coordinate of 1e\+30 \(frame 2, joint 6\), more than 100; units: metres",
        ),
        ({"skeleton": spoilt_skeleton(-101)}, "a coordinate of 101 "),
        ({"skeleton": np.full((4, 1, 20, 3), "1")}, "a skeleton of <U1, expected an array of numbers"),
        ({"skeleton": [[1]]}, "a skeleton of list"),
        ({"name": "clip\0"}, "a NUL character in its name"),
        ({"name": "a\0b"}, "a NUL character in its name"),
        ({"name": 5}, "a name that is no text but int"),
        ({"name": "clip01"}, "duplicate"),
        ({"name": ""}, "without a name"),
        ({"image": b"GIF89a"}, "not a JPEG"),
        ({"texts": {TEXT_SET: np.zeros(4, np.float32)}}, "width 4, earlier clips have 3"),
        ({"texts": {TEXT_SET: np.array([1.0, np.nan, 2.0])}}, "vector of finite numbers"),
        ({"texts": {"../../escape": np.zeros(3, np.float32)}}, "expected 'model/question/feature'"),
    ],
)
def test_a_bad_clip_is_set_aside_and_stops_nothing(tmp_path, capsys, changes, reason):
    bad = make_clip(4, **changes)
    write(tmp_path / "out", [make_clip(0), make_clip(1), bad, make_clip(5)])
    assert records.Records(tmp_path / "out").index["name"].tolist() == ["clip00", "clip01", "clip05"]
    (listed,) = json.loads((tmp_path / "out" / "set_aside.json").read_text())
    assert listed["name"] == str(bad.name)
    assert re.search(reason, listed["reason"])
    assert "set aside: 1" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["caf\udce9", "\ud800", "a\udcff\udcfe.json"])
def test_a_name_that_is_not_unicode_costs_only_its_clip(tmp_path, capsys, name):
    clips = [make_clip(0), make_clip(1, name=name), records.SetAside(name, f"{name}: broken"), make_clip(2)]
    write(tmp_path / "out", clips, set_aside=[records.SetAside(name, "outside")])
    assert records.Records(tmp_path / "out").index["name"].tolist() == ["clip00", "clip02"]
    listed = json.loads((tmp_path / "out" / "set_aside.json").read_text(encoding="utf-8"))
    assert [item["name"] for item in listed] == [name.encode("utf-8", "backslashreplace").decode()] * 3
    assert "not UTF-8; rename it" in listed[1]["reason"]
    assert "set aside: 3" in capsys.readouterr().out


def test_a_dataset_named_after_a_file_that_is_not_unicode(tmp_path):
    info = make_info(dataset="mine_\udce9", preprocessing="from caf\udce9.pkl")
    records.write_records(tmp_path / "out", info, [make_clip(0)])
    assert records.Records(tmp_path / "out").info == info


@pytest.mark.parametrize("class_names", [(), ("a", 1), ("a", "b\udce9"), ("a", "")])
def test_class_names_that_are_none(class_names):
    with pytest.raises(records.RecordsError, match=r"class names: .*, expected one text"):
        make_info(class_names=class_names)


@pytest.mark.parametrize(
    ("units", "sound", "beyond"),
    [
        ("meters", 99, 101),
        ("millimeters", 99_000, 101_000),
        ("pixels", 65_000, 101_000),
        ("halves of the picture's width", 99, 101),
        ("feet", 9e5, 2e6),
    ],
)
def test_the_bound_of_coordinates_depends_on_their_unit(units, sound, beyond):
    info = make_info(units=units)
    assert checks.skeleton_fault(spoilt_skeleton(sound), info) is None
    assert "more than" in checks.skeleton_fault(spoilt_skeleton(beyond), info)
    assert "more than" in checks.skeleton_fault(spoilt_skeleton(-beyond), info)


def test_confidence_alone_is_no_skeleton_and_may_not_be_nan(tmp_path):
    info = make_info(layout="coco", channels=("x", "y", "confidence"))
    good = np.ones((4, 1, 17, 3), np.float32)
    confidence_alone, broken = good.copy(), good.copy()
    confidence_alone[..., :2] = 0
    broken[1, 0, 3, 2] = np.nan
    skeletons = (good, confidence_alone, broken, np.ones((4, 1, 17, 2), np.float32))
    clips = [make_clip(number, skeleton=skeleton) for number, skeleton in enumerate(skeletons)]
    records.write_records(tmp_path / "out", info, clips)
    reasons = [item["reason"] for item in json.loads((tmp_path / "out" / "set_aside.json").read_text())]
    assert [reason.split(",")[0] for reason in reasons] == [
        "every joint of every frame is zero",
        "NaN or infinite values in 1 of 4 frames",
        "joints and channels (17",
    ]


def test_what_the_source_set_aside_is_listed_in_order(tmp_path):
    clips = [make_clip(0), records.SetAside("b.json", "truncated"), make_clip(1)]
    write(tmp_path / "out", clips, set_aside=[records.SetAside("../a.json", "leads outside")])
    listed = json.loads((tmp_path / "out" / "set_aside.json").read_text())
    assert [item["name"] for item in listed] == ["../a.json", "b.json"]


def test_clips_kept_without_an_image_are_no_clips_set_aside(tmp_path, capsys):
    without = records.SetAside("a.jpg", "broken; the clip is kept, without an image", True)
    records.write_records(tmp_path / "out", make_info(), [make_clip(0), without], total=1)
    shown = capsys.readouterr()
    assert "1 clip kept without an image, listed in" in shown.out and "set aside" not in shown.out
    assert "1/1" in shown.err and "2/1" not in shown.err
    stored = json.loads((tmp_path / "out" / "set_aside.json").read_text())
    assert stored == [{"name": without.name, "reason": without.reason}]
    records.print_set_aside([without, records.SetAside("b", "broken")], tmp_path)
    assert "set aside: 1; 1 clip kept without an image, listed in" in capsys.readouterr().out


def test_no_clip_left(tmp_path):
    with pytest.raises(PreparationError, match=r"no clip is left to write, 1 set aside \(a: broken\)"):
        write(tmp_path / "out", [records.SetAside("a", "broken")])
    assert not list(tmp_path.iterdir())


def test_existing_records_are_kept_unless_overwritten(tmp_path):
    out = tmp_path / "out"
    write(out, [make_clip(0)])
    before = contents(out)
    with pytest.raises(PreparationError, match=r"exists already; .*--overwrite"):
        write(out, [make_clip(1)])
    assert contents(out) == before
    write(out, [make_clip(1)], overwrite=True)
    assert records.Records(out).index["name"].tolist() == ["clip01"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(PreparationError, match="not a records folder"):
        write(tmp_path, [make_clip(0)], overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device"), ValueError("a bug")])
def test_a_failure_leaves_existing_records_and_nothing_else(tmp_path, failure):
    def clips():
        yield make_clip(1)
        raise failure

    out = tmp_path / "out"
    write(out, [make_clip(0)])
    before = contents(out)
    expected = PreparationError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected) as raised:
        write(out, clips(), overwrite=True)
    if isinstance(failure, OSError):
        assert "the disk is full" in str(raised.value)
        assert "out.incomplete" in str(raised.value)
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_leaves_does_not_open_and_the_next_run_removes_it(tmp_path):
    out = tmp_path / "out"

    def clips():
        yield make_clip(0)
        (incomplete,) = tmp_path.glob("out.incomplete-*")
        for folder in (incomplete, incomplete / "records"):
            with pytest.raises(records.RecordsError, match="not a records folder"):
                records.Records(folder)

    write(out, clips())
    locks_and_scratch.leave_behind(tmp_path / "out.incomplete-0123abcd", "records")
    locks_and_scratch.leave_lock(tmp_path / ".out.lock")
    write(out, [make_clip(1)], overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_killed_between_two_renames_loses_nothing(tmp_path):
    out, scratch = tmp_path / "out", tmp_path / "out.incomplete-0123abcd"
    write(out, [make_clip(0)])
    locks_and_scratch.leave_behind(scratch)
    out.rename(scratch / "replaced")
    with pytest.raises(PreparationError, match="exists already"):
        write(out, [make_clip(1)])
    assert records.Records(out).index["name"].tolist() == ["clip00"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_records_that_another_host_was_replacing_are_not_forgotten(tmp_path):
    out, scratch = tmp_path / "out", tmp_path / "out.incomplete-0123abcd"
    write(out, [make_clip(0)])
    scratch.mkdir()
    with exclusive(scratch / MARK, what="writing", remedy="wait"):
        out.rename(scratch / "replaced")
        with pytest.raises(PreparationError, match=r"out: missing; .*replaced holds records .* rename that folder to"):
            write(out, [make_clip(1)])
    assert len(records.Records(scratch / "replaced")) == 1


@pytest.mark.parametrize(
    "name", ["out.incomplete", "out.replaced", "out.unpacked", "out.incomplete-0123abcd", "out.incomplete-mine"]
)
@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_folders_that_a_user_made_beside_the_destination_are_not_touched(tmp_path, name, kind):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.tex").write_text("years of work")
    beside = tmp_path / name
    if kind == "link":
        beside.symlink_to(elsewhere)
    elif kind == "file":
        beside.write_text("years of work")
    else:
        beside.mkdir()
        (beside / "thesis.tex").write_text("years of work")
    for number in range(2):
        write(tmp_path / "out", [make_clip(number)], overwrite=True)
    assert records.Records(tmp_path / "out").index["name"].tolist() == ["clip01"]
    thesis = beside if kind == "file" else beside / "thesis.tex"
    assert thesis.read_text() == "years of work"
    assert beside.is_symlink() == (kind == "link")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["elsewhere", "out", name])


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_preparation_of_the_same_records_is_refused(tmp_path, overwrite):
    out = tmp_path / "out"

    def clips():
        yield make_clip(0)
        with pytest.raises(LockedError, match=r"preparing records in .*out: another process .*choose another --out"):
            write(out, [make_clip(1)], overwrite=overwrite)
        yield make_clip(2)

    write(out, clips())
    assert records.Records(out).index["name"].tolist() == ["clip00", "clip02"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_of_many_preparations_at_once_one_is_complete_and_the_others_are_refused(tmp_path):
    commands = [
        [sys.executable, "-m", "data_prep.synthetic", f"--out={tmp_path / 'out'}", f"--seed={seed}", *SMALL]
        for seed in range(3)
    ]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    errors = [process.communicate()[1] for process in running]
    codes = [process.returncode for process in running]
    assert sorted(codes) == [0, 1, 1], errors
    for code, error in zip(codes, errors, strict=True):
        assert code == 0 or "another process is at work" in error or "exists already" in error
    assert len(records.Records(tmp_path / "out")) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_appears_at_the_destination_meanwhile_is_not_replaced(tmp_path):
    out = tmp_path / "out"

    def clips():
        yield make_clip(0)
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")

    with pytest.raises(PreparationError, match="not a records folder"):
        write(out, clips())
    assert contents(out) == {"thesis.tex": b"years of work"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_destination_that_cannot_be_created(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PreparationError, match=r"file: cannot be created .*choose another --out"):
        write(tmp_path / "file" / "out", [make_clip(0)])


def test_destinations_that_no_folder_can_have(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out, message in (
        (tmp_path / "loop" / "out", "not a path that can be used .*choose another --out"),
        ("/", "the root of the disk"),
        (tmp_path / ("x" * 300), "the folder name x+... of 300 bytes is too long"),
        (tmp_path / ("é" * 100), "of 200 bytes is too long"),
    ):
        with pytest.raises(PreparationError, match=message):
            write(out, [make_clip(0)])
    write(tmp_path / ("x" * 180), [make_clip(0)])


def test_commands_end_on_an_interruption_with_a_message():
    with pytest.raises(SystemExit, match="interrupted; nothing was changed"), plain_errors():
        raise KeyboardInterrupt


def test_records_without_images_or_text(tmp_path):
    write(tmp_path / "out", [make_clip(0, image=None, texts={})])
    assert not (tmp_path / "out" / "images").exists()
    assert not (tmp_path / "out" / "text").exists()


def test_images_are_stored_as_they_are(tmp_path):
    picture = jpeg(20, 20)
    write(tmp_path / "out", [make_clip(1, image=picture)])
    opened = records.Records(tmp_path / "out")
    assert opened._dataset("images").read(0)["image"] == picture
