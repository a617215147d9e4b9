"""CTR-GCN's arrays become the clips they were made of, in files of any size; damaged files are named."""

import io
import pathlib
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

from data_prep import ctrgcn_arrays
from data_prep.formats import npz_rows, ntu_clips
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from tests.helpers import ntu_formats
from tests.helpers.ntu_formats import set_aside

ROOT = pathlib.Path(__file__).parents[2]


def save(folder: pathlib.Path, stem: str, arrays: dict, compressed: bool = False) -> pathlib.Path:
    path = folder / f"{stem}.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def prepare(source: pathlib.Path, out: pathlib.Path, **options) -> records.Records:
    ctrgcn_arrays.prepare(source, out, **options)
    return records.Records(out)


def write_names(path: pathlib.Path, opened: records.Records, benchmark: str, part: str) -> pathlib.Path:
    path.write_text("".join(f"{name}\n" for name in opened.index["name"][opened.select(benchmark, part)]))
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("benchmark", "copies"),
    [("ntu60_xsub", False), ("ntu60_xview", False), ("ntu120_xsub", True), ("ntu120_xset", True)],
)
def test_the_clips_are_those_of_the_raw_files(reference, tmp_path, capsys, benchmark, copies, compressed):
    made = ntu_formats.arrays(reference, benchmark, copies)
    stem = ctrgcn_arrays.BENCHMARKS[benchmark]
    out = tmp_path / "out"
    ctrgcn_arrays.main([f"--source={save(tmp_path, stem, made, compressed)}", f"--out={out}"])
    opened = records.Records(out)
    rows = [row for part in ("train", "test") for row in reference.select(benchmark, part)]
    assert len(opened) == len(rows)
    for row, original in enumerate(rows):
        expected = reference.skeleton(original)
        if not copies and not expected[1:].any():  # zeros cannot be told from an absent body
            expected = expected[:1]
        np.testing.assert_array_equal(opened.skeleton(row), expected)
        assert opened.index["label"][row] == reference.index["label"][original]
    for part in ("train", "test"):
        count = len(reference.select(benchmark, part))
        selected = opened.select(benchmark, part)
        assert opened.index["name"][selected].tolist() == [f"{stem}_{part}_{place:06d}" for place in range(count)]
    assert opened.class_names(benchmark) == reference.class_names(benchmark)
    with pytest.raises(records.RecordsError, match="is not one of"):
        opened.protocol("ntu60_xview" if benchmark != "ntu60_xview" else "ntu60_xsub")
    assert set_aside(out) == {}
    printed = capsys.readouterr().out
    single = int((reference.index["num_bodies"] == 1).sum())
    without = len(rows) - (opened.index["num_bodies"] == 2).sum()
    absent = f"0 stored as zeros, {single} as copies" if copies else f"{without} stored as zeros"
    assert f"removed padding from {len(rows)} clips" in printed and absent in printed
    assert (" a second body of zeros: " in printed) == copies
    assert "NOTE: the complete dataset has" in printed


def test_names_make_them_the_records_of_the_raw_files(reference, tmp_path):
    """All but the order, and the second actors of zeros."""
    source = save(tmp_path, "mine", ntu_formats.arrays(reference, "ntu120_xsub", copies=True))
    lists = {
        f"{part}_names": write_names(tmp_path / f"{part}.txt", reference, "ntu120_xsub", part)
        for part in ("train", "test")
    }
    opened = prepare(source, tmp_path / "out", benchmark="ntu120_xsub", **lists)
    assert sorted(opened.index["name"]) == sorted(reference.index["name"])
    originals = {name: row for row, name in enumerate(reference.index["name"])}
    for row, name in enumerate(opened.index["name"]):
        for field in records.INDEX_FIELDS:
            assert opened.index[field][row] == reference.index[field][originals[name]], (name, field)
        np.testing.assert_array_equal(opened.skeleton(row), reference.skeleton(originals[name]))
    for protocol in records.PROTOCOLS["ntu"]:
        for part in ("train", "test"):
            expected = set(reference.index["name"][reference.select(protocol, part)])
            assert set(opened.index["name"][opened.select(protocol, part)]) == expected


@pytest.mark.slow
def test_training_sees_the_clips_of_the_raw_files(reference, tmp_path, monkeypatch):
    """Whether a second actor of zeros is stored or padded makes no difference to a batch."""
    source = save(tmp_path, "NTU60_CS", ntu_formats.arrays(reference, "ntu60_xsub", copies=False))
    opened = prepare(source, tmp_path / "out")
    imported, raw = (ntu_formats.first_batch(records, "ntu60_xsub") for records in (opened, reference))
    np.testing.assert_array_equal(imported["skeleton"], raw["skeleton"])
    np.testing.assert_array_equal(imported["label"], raw["label"])
    ntu_formats.train_two_steps(opened, tmp_path / "run", monkeypatch)


def small_arrays(train: int = 6, test: int = 4, frames: int = 12) -> dict[str, np.ndarray]:
    """NTU60_CS in small: clip n is n + 3 frames of noise, one body; labels 0, 1, 2, ..."""
    made = {}
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        x = np.zeros((count, frames, 150), np.float32)
        for number in range(count):
            x[number, : 3 + number, :75] = rng.normal(size=(3 + number, 75))
        made[f"x_{part}"], made[f"y_{part}"] = x, np.eye(60)[:count]
    return made


def test_number_types_and_bodies(tmp_path):
    made = small_arrays()
    made["x_train"] = made["x_train"].astype(np.float16)
    made["x_test"] = made["x_test"].astype(">f8")
    made["y_train"] = made["y_train"].astype(bool)
    made["y_test"] = made["y_test"].astype(np.int64)
    made["x_train"][0, :3, 75:] = made["x_train"][0, :3, :75]
    made["x_train"][1, 2, 80] = 1
    made["x_train"][2, 1] = 0  # an empty frame inside a clip is not padding
    opened = prepare(save(tmp_path, "ntu60_cs", made), tmp_path / "out")
    assert opened.index["num_bodies"].tolist() == [1, 2] + [1] * 8
    assert opened.index["num_frames"].tolist() == [3, 4, 5, 6, 7, 8, 3, 4, 5, 6]
    assert opened.index["label"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert not opened.skeleton(2)[:, 1].any()
    assert all(not opened.index[field].any() for field in ("subject", "camera", "setup", "replication"))


SPOILT_CLIPS = {
    "NaN": ("x", (0, 0), np.nan, "NaN or infinite values in 1 of"),
    "infinite": ("x", (1, 3), -np.inf, "NaN or infinite values in 1 of"),
    "beyond float32": ("x", (0, 5), 1e300, "NaN or infinite values in 1 of"),
    "all zero": ("x", (slice(None), slice(None)), 0, "every joint of every frame is zero"),
    "two labels": ("y", (7,), 1, "not one-hot: 2 of 60 entries"),
    "no label": ("y", (slice(None),), 0, "not one-hot: 0 of 60 entries"),
    "half a label": ("y", (slice(None),), np.eye(60)[4] / 2, "not one-hot: 1 of 60 entries"),
    "a negative label": ("y", (slice(None),), -np.eye(60)[4], "not one-hot"),
    "NaN as label": ("y", (3,), np.nan, "not one-hot"),
    "label as number": ("y", (slice(None),), 7, "not one-hot: 60 of 60"),
}


@pytest.mark.parametrize("part", ["train", "test"])
def test_spoiled_clips_are_set_aside_by_name(tmp_path, part):
    made = small_arrays(len(SPOILT_CLIPS) + 2, len(SPOILT_CLIPS) + 2, frames=20)
    made[f"x_{part}"] = made[f"x_{part}"].astype(np.float64)
    for number, (kind, place, value, _) in enumerate(SPOILT_CLIPS.values()):
        made[f"{kind}_{part}"][number + 1][place] = value
    opened = prepare(save(tmp_path, "NTU60_CS", made), tmp_path / "out")
    reasons = set_aside(tmp_path / "out")
    for number, (_, _, _, message) in enumerate(SPOILT_CLIPS.values()):
        assert message in reasons[f"NTU60_CS_{part}_{number + 1:06d}"]
    assert len(reasons) == len(SPOILT_CLIPS)
    assert len(opened) == len(SPOILT_CLIPS) + 4


def without(name: str) -> dict:
    return {key: value for key, value in small_arrays().items() if key != name}


SPOILT_FILES = {
    **{f"no {name}": (without(name), rf"no {name}, only .*expected x_train") for name in small_arrays()},
    "nothing": ({}, "no x_train and no y_train .* only nothing"),
    "other names": ({"data": np.zeros(3)}, "no x_train .* only data"),
    "one body": (
        {"x_test": np.zeros((4, 9, 75))},
        r"x_test is float64 of shape \(4, 9, 75\), expected numbers of shape",
    ),
    "two dimensions": ({"x_train": np.zeros((6, 150))}, r"x_train is float64 of shape \(6, 150\)"),
    "five dimensions": ({"x_train": np.zeros((6, 3, 9, 25, 2))}, "x_train is float64 of shape"),
    "text": ({"x_train": np.full((6, 9, 150), "a")}, "x_train is <U1 of shape"),
    "complex": ({"x_train": np.zeros((6, 9, 150), complex)}, "x_train is complex128"),
    "labels as numbers": ({"y_train": np.arange(6)}, r"y_train is int64 of shape \(6,\), expected one-hot"),
    "labels as text": ({"y_train": np.full((6, 60), "a")}, "y_train is <U1"),
    "too few labels": ({"y_test": np.eye(60)[:3]}, r"y_test is of shape \(3, 60\), expected \(4, 60\): 4 clips"),
    "too many labels": ({"y_test": np.eye(60)[:5]}, r"y_test is of shape \(5, 60\)"),
    "other classes": ({"y_train": np.eye(120)[:6]}, "60 classes as in ntu60_xsub; if the file is of another benchmark"),
    "labels that are objects": ({"y_train": np.array([[None]], object)}, "y_train is an array of objects"),
    "clips that are objects": ({"x_train": np.array([{}] * 6, object)}, "x_train is an array of objects, .*not loaded"),
    "columns": ({"x_train": np.asfortranarray(np.ones((6, 9, 150)))}, "stored in column order"),
    "huge clips": ({"x_train": np.zeros((1, 60_000, 150), np.float32)}, "x_train has rows of shape"),
    "no clips": (
        {"x_train": np.zeros((0, 9, 150)), "y_train": np.zeros((0, 60)), "x_test": np.zeros((4, 9, 150))},
        "no clip",
    ),
}


@pytest.mark.parametrize("kind", SPOILT_FILES)
def test_files_that_are_not_as_published_are_refused(tmp_path, kind):
    changes, message = SPOILT_FILES[kind]
    whole = kind in ("nothing", "other names") or kind.startswith(("no x", "no y"))
    source = save(tmp_path, "NTU60_CS", changes if whole else {**small_arrays(), **changes})
    with pytest.raises(PreparationError, match=message):
        ctrgcn_arrays.prepare(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["NTU60_CS.npz"]


def rewrite(source: pathlib.Path, name: str, edit) -> bytes:
    """The archive with the contents of one member edited, and its directory correct."""
    stream = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.namelist():
            contents = old.read(entry)
            new.writestr(entry, edit(contents) if entry == name else contents)
    return stream.getvalue()


def lie(contents: bytes, old: bytes, new: bytes) -> bytes:
    assert contents.count(old) == 1 and len(old) == len(new)
    return contents.replace(old, new)


DAMAGED = {
    "empty": lambda path: b"",
    "half": lambda path: path.read_bytes()[: path.stat().st_size // 2],
    "without its end": lambda path: path.read_bytes()[:-10],
    "not a zip": lambda path: b"no archive" * 1000,
    "a pickle": lambda path: b"\x80\x04N.",
    "a bare array": lambda path: b"\x93NUMPY" + bytes(999),
    "zeros": lambda path: bytes(5000),
    "a member cut": lambda path: rewrite(path, "x_train.npy", lambda c: c[:-100]),
    "a member longer": lambda path: rewrite(path, "x_train.npy", lambda c: c + b"1234"),
    "a member empty": lambda path: rewrite(path, "y_test.npy", lambda c: b""),
    "a member that is no array": lambda path: rewrite(path, "y_test.npy", lambda c: b"label" * 99),
    "a shape that lies": lambda path: rewrite(path, "x_train.npy", lambda c: lie(c, b"(6, 12, 150)", b"(9, 99, 150)")),
    "a huge shape": lambda path: rewrite(path, "x_train.npy", lambda c: lie(c, b"(6, 12, 150), }", b"(6**99, 9, 9),}")),
    "a negative shape": lambda path: rewrite(path, "x_train.npy", lambda c: lie(c, b"(6, 12, 150)", b"(-6,12, 150)")),
    "a type that lies": lambda path: rewrite(path, "x_train.npy", lambda c: lie(c, b"'<f4'", b"'<f8'")),
    "an unknown type": lambda path: rewrite(path, "x_train.npy", lambda c: lie(c, b"'<f4'", b"'<q9'")),
    "another version": lambda path: rewrite(path, "x_train.npy", lambda c: c[:6] + b"\x09" + c[7:]),
    "a wrong bit": lambda path: path.read_bytes().replace(np.float32(1).tobytes(), np.float32(2).tobytes(), 1),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_archives_are_refused(tmp_path, kind):
    made = small_arrays()
    made["x_train"][5, 0, 0] = 1  # for the wrong bit
    source = save(tmp_path, "NTU60_CS", made)
    source.write_bytes(DAMAGED[kind](source))
    with pytest.raises(PreparationError, match=r"NTU60_CS\.npz: .*(download or create it again|expected numbers)"):
        ctrgcn_arrays.prepare(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["NTU60_CS.npz"]


def test_damaged_bytes_never_end_in_a_traceback(tmp_path):
    whole = save(tmp_path, "NTU60_CS", small_arrays(), compressed=True).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=3) if number % 2 else -rng.integers(1, 500, size=3):
            damaged[int(place)] = int(rng.integers(256))
        (tmp_path / "NTU60_CS.npz").write_bytes(damaged)
        try:
            opened = prepare(tmp_path / "NTU60_CS.npz", tmp_path / f"out{number}")
            assert len(opened) == 10
        except PreparationError as error:
            assert "NTU60_CS.npz" in str(error)
            refused += 1
    assert refused > 40


def test_arrays_of_other_actions_have_a_protocol_of_their_own(tmp_path):
    made = small_arrays()
    for part in ("train", "test"):
        made[f"y_{part}"] = np.eye(3)[np.arange(len(made[f"y_{part}"])) % 3]
    source = save(tmp_path, "mine", made)
    with pytest.raises(PreparationError, match=r"y_train is of shape .*name its classes with --class_names"):
        ctrgcn_arrays.prepare(source, tmp_path / "out", benchmark="ntu60_xsub")
    names = tmp_path / "classes.txt"
    names.write_text("wave\nsit down\nkick\n")
    ctrgcn_arrays.main([f"--source={source}", f"--out={tmp_path / 'out'}", f"--class_names={names}"])
    opened = records.Records(tmp_path / "out")
    assert opened.info.class_names == ("wave", "sit down", "kick")
    assert set(opened.protocols) == {"split"} and opened.info.dataset == "arrays_mine"
    assert len(opened.select("split", "train")) == len(made["x_train"])
    assert len(opened.select("split", "test")) == len(made["x_test"])
    with pytest.raises(SystemExit):
        ctrgcn_arrays.main(["--source=a", "--out=b", "--class_names=c", "--benchmark=ntu60_xsub"])


def test_any_changed_bit_of_a_header_is_noticed(tmp_path):
    source = save(tmp_path, "NTU60_CS", small_arrays())
    whole = source.read_bytes()
    headers = [place for place in range(len(whole)) if whole.startswith(b"\x93NUMPY", place)]
    assert len(headers) == 4
    for place in (start + offset for start in headers for offset in range(80)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        source.write_bytes(damaged)
        with pytest.raises(PreparationError, match=r"NTU60_CS\.npz: "):
            for member in npz_rows.members(source).values():
                for _ in member.rows():
                    pass


@pytest.mark.parametrize("name", ["arrays.npz", "NTU60.npz", "NTU120_CS.npz"])
def test_a_name_that_says_no_benchmark(tmp_path, name):
    with pytest.raises(PreparationError, match=r"name the benchmark with --benchmark, one of ntu60_xsub"):
        ctrgcn_arrays.prepare(tmp_path / name, tmp_path / "out")


def test_no_file(tmp_path):
    for path in (tmp_path / "NTU60_CS.npz", tmp_path):
        with pytest.raises(PreparationError, match="no such file"):
            ctrgcn_arrays.prepare(path, tmp_path / "out", benchmark="ntu60_xsub")


NAMES = [f"S001C001P{subject:03d}R001A{action:03d}" for action in range(1, 7) for subject in (1, 3)]


def name_lists(folder: pathlib.Path, **changes) -> dict[str, pathlib.Path]:
    lists = {"train_names": NAMES[0::2], "test_names": NAMES[1:8:2], **changes}
    for key, names in lists.items():
        (folder / key).write_text("\n".join(names))
    return {key: folder / key for key in lists}


def test_names_that_contradict_the_file_set_their_clips_aside(tmp_path):
    train = [*NAMES[0:6:2], "S001C001P001R001A009", "S001C001P003R001A005", NAMES[10]]
    test = [*NAMES[1:6:2], NAMES[5]]
    opened = prepare(
        save(tmp_path, "NTU60_CS", small_arrays()),
        tmp_path / "out",
        **name_lists(tmp_path, train_names=train, test_names=test),
    )
    assert opened.index["name"].tolist() == [*NAMES[0:6:2], NAMES[10], *NAMES[1:6:2]]
    reasons = set_aside(tmp_path / "out")
    assert "label 3 in the file, but the name says 8 (A009)" in reasons["S001C001P001R001A009"]
    assert "in the train part, where subject 3 does not belong in ntu60_xsub" in reasons["S001C001P003R001A005"]
    assert "label 3 in the file, but the name says 2" in reasons[NAMES[5]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_names": NAMES[1:6:2]}, "3 names, but the array has 4 clips"),
        ({"train_names": [*NAMES[0:10:2], "walking"]}, "word 6 is 'walking', expected a clip name"),
        ({"train_names": []}, "0 names, but the array has 6 clips"),
        ({"train_names": ["S\xe4"]}, "word 1 is 'Sä', expected a clip name"),
    ],
)
def test_lists_of_names_that_do_not_fit(tmp_path, changes, message):
    source = save(tmp_path, "NTU60_CS", small_arrays())
    with pytest.raises(PreparationError, match=message):
        ctrgcn_arrays.prepare(source, tmp_path / "out", **name_lists(tmp_path, **changes))
    with pytest.raises(PreparationError, match="nowhere: not a readable list"):
        ctrgcn_arrays.prepare(source, tmp_path / "out", train_names=tmp_path / "nowhere", test_names="x")


def test_one_list_alone_is_an_error(capsys):
    with pytest.raises(SystemExit):
        ctrgcn_arrays.main(["--source=a.npz", "--out=b", "--train_names=c"])
    assert "--train_names and --test_names must be given together" in capsys.readouterr().err


def test_existing_records_stay_unless_told(tmp_path):
    source = save(tmp_path, "NTU60_CS", small_arrays())
    command = [sys.executable, "-m", "data_prep.ctrgcn_arrays", f"--source={source}", f"--out={tmp_path / 'out'}"]
    prepare(source, tmp_path / "out")
    before = (tmp_path / "out" / "info.json").stat().st_mtime_ns
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1 and "exists already" in refused.stderr and "Traceback" not in refused.stderr
    (tmp_path / "NTU60_CS.npz").write_bytes(source.read_bytes()[:-99])
    with pytest.raises(PreparationError, match="truncated"):
        ctrgcn_arrays.prepare(source, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "info.json").stat().st_mtime_ns == before
    assert len(records.Records(tmp_path / "out")) == 10
    save(tmp_path, "NTU60_CS", small_arrays(train=3))
    assert len(prepare(source, tmp_path / "out", overwrite=True)) == 7


def test_an_interruption_leaves_nothing_that_loads(tmp_path, monkeypatch):
    source = save(tmp_path, "NTU60_CS", small_arrays())
    labels = iter(range(100))
    label = ctrgcn_arrays._label

    def stop(y):
        if next(labels) == 7:
            raise KeyboardInterrupt
        return label(y)

    monkeypatch.setattr(ctrgcn_arrays, "_label", stop)
    with pytest.raises(SystemExit, match="interrupted; nothing was changed"):
        ctrgcn_arrays.main([f"--source={source}", f"--out={tmp_path / 'out'}"])
    assert [path.name for path in tmp_path.iterdir()] == ["NTU60_CS.npz"]


@pytest.mark.parametrize("compressed", [False, True])
def test_rows_come_in_little_memory(tmp_path, compressed):
    """300 MB of an array, and 2 of labels, at some 50 MB."""
    source = save(tmp_path, "big", {"x": np.ones((50, 10_000, 150), np.float32), "y": np.ones((5, 60))}, compressed)
    tracemalloc.start()
    members = npz_rows.members(source)
    total = sum(float(row[0].sum()) for row in members["x"].rows())
    assert len(list(members["y"].rows())) == 5
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 50 * 150
    assert peak < 80e6


def test_benchmarks_are_those_of_ntu():
    assert set(ctrgcn_arrays.BENCHMARKS) == set(ntu_clips.NUM_CLIPS) == set(records.PROTOCOLS["ntu"])
