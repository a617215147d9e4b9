"""A user's own videos become records: classes, persons, divisions, images; what cannot be used is set aside by name.

The person in the made videos is a white rectangle, which a small estimator finds; the rest is as in use. The last test
runs the real estimator where its files and a real clip are present.
"""

import json
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

from configs import videos as videos_config
from data_prep import videos
from data_prep.formats import dealing, sources, video_lists
from data_prep.preparation import video_poses
from data_prep.videos import Divide
from mmcl_jax import config_files
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.data.records import Records
from mmcl_jax.description import describe
from mmcl_jax.poses import model_files
from mmcl_jax.poses.stages import Stages
from mmcl_jax.poses.types import FramePoses, Person
from mmcl_jax.poses.video import Frame
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.task import build_training_task
from tests.poses.test_video import turned

av = pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")

CLASSES = ("jump", "sit down", "walk")
PERSONS = ("ann", "bob", "cy", "dee")
CLIP = pathlib.Path(os.environ.get("MMCL_TEST_DATA", "")) / "data" / "S001C001P001R001A001_rgb.avi"
_SHAPE = np.random.default_rng(0).random((17, 2))  # the joints' places in the rectangle
_SIZE = (96, 64)
_PERSON = (12, 30)  # width and height of the rectangle


class RectangleEstimator:
    """Finds white rectangles; the n-th from the left is person n."""

    layout = "coco"

    def __init__(self, most_clips: int | None = None):
        self.stages = Stages()
        self.clips, self._most = 0, most_clips

    def track(self, frames: Iterator[Frame], frame_rate: float) -> Iterator[FramePoses]:
        if self.clips == self._most:
            raise KeyboardInterrupt
        self.clips += 1
        for frame in frames:
            columns = np.flatnonzero((frame.picture.mean(axis=2) > 128).any(axis=0))
            runs = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1) if len(columns) else []
            persons = []
            for number, run in enumerate(runs):
                rows = np.flatnonzero((frame.picture[:, run].mean(axis=2) > 128).any(axis=1))
                low, high = np.array([run[0], rows[0]]), np.array([run[-1], rows[-1]]) + 1
                joints = (low + _SHAPE * (high - low)).astype(np.float32)
                persons.append(Person(number, joints, np.full(17, 0.9, np.float32)))
            yield FramePoses(frame.number, frame.time, tuple(persons), frame.picture)


@pytest.fixture
def estimator(monkeypatch) -> RectangleEstimator:
    return use(monkeypatch, RectangleEstimator())


def use(monkeypatch, estimator: RectangleEstimator) -> RectangleEstimator:
    monkeypatch.setattr(video_poses, "_estimator", lambda model: estimator)
    return estimator


def write(path: pathlib.Path, lefts, rate: int = 15) -> pathlib.Path:
    """A video of persons whose left edges are `lefts`: a number, or several, for each frame; None: nobody."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *_SIZE, "yuv420p", 4_000_000
        for left in lefts:
            picture = np.zeros((*_SIZE[::-1], 3), np.uint8)
            for edge in () if left is None else np.atleast_1d(left):
                picture[20 : 20 + _PERSON[1], edge : edge + _PERSON[0]] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A clip of each class of each person, one with a name that needs care."""
    root = tmp_path_factory.mktemp("mine")
    for number, (label, person) in enumerate((label, person) for label in CLASSES for person in PERSONS):
        write(root / label / f"{person}_{number} ü.mp4", range(number, number + 30, 3))
    return root


def prepare(folder: pathlib.Path, out: pathlib.Path, **options) -> Records:
    videos.prepare(folder, out, workers=1, **{"named_subjects": True, **options})
    return Records(out)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_classes_persons_folds_and_images(estimator, folder, tmp_path, capsys):
    opened = prepare(folder, tmp_path / "out", divide=Divide(folds=2), images=True)
    assert len(opened) == 12 and opened.info.class_names == CLASSES
    assert opened.info.layout == "coco" and opened.info.units == "pixels"
    assert opened.info.channels == ("x", "y", "confidence") and opened.info.image_source == "rgb"
    rows = {str(name): row for row, name in enumerate(opened.index["name"])}
    row = rows["sit down/bob_5 ü"]
    assert opened.index["label"][row] == 1 and opened.index["subject"][row] == 2
    clip = opened.skeleton(row)
    assert clip.shape == (1, 10, 17, 3)
    np.testing.assert_allclose(clip[0, 4, :, 0], 5 + 3 * 4 + _SHAPE[:, 0] * _PERSON[0], atol=1)
    np.testing.assert_allclose(clip[0, :, :, 2], 0.9, atol=1e-6)
    assert opened.clips_without(np.arange(12), "images") == [] and opened.image(row, 96).shape == (96, 96, 3)
    tests = [set(opened.index["subject"][opened.select(f"fold_{number}", "test")]) for number in (1, 2)]
    assert tests[0] | tests[1] == {1, 2, 3, 4} and not tests[0] & tests[1]
    trains = set(opened.index["subject"][opened.select("fold_1", "train")])
    assert trains == tests[1]
    printed = capsys.readouterr().out
    assert "fold_1: 6 training and 6 test clips" in printed and "subjects: 1 ann, 2 bob" in printed


def test_an_interrupted_run_goes_on_and_ends_alike(folder, tmp_path, monkeypatch, capsys):
    """As do shards, in another order."""
    options = {"divide": Divide(folds=2, validation_fraction=0.2), "images": True, "layout": "body13"}
    use(monkeypatch, RectangleEstimator())
    prepare(folder, tmp_path / "whole/out", **options)
    use(monkeypatch, RectangleEstimator(most_clips=5))
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "cut/out", **options)
    again = use(monkeypatch, RectangleEstimator())
    opened = prepare(folder, tmp_path / "cut/out", **options)
    assert again.clips == 7 and "5 of 12 clips done" in capsys.readouterr().out
    assert opened.num_joints == 13
    work = tmp_path / "shards"
    for number in (1, 0):
        videos.prepare(folder, named_subjects=True, images=True, work=work, shard=(number, 2), workers=1)
    prepare(folder, tmp_path / "joined/out", work=work, **options)
    assert again.clips == 7 + 12
    expected = contents(tmp_path / "whole/out")
    assert len(expected) > 8 and contents(tmp_path / "cut/out") == expected
    assert contents(tmp_path / "joined/out") == expected
    for number in (1, 2):
        train, validation = (
            set(opened.index["name"][opened.select(f"fold_{number}{end}", part)])
            for end, part in (("", "train"), ("_validation", "test"))
        )
        test = set(opened.index["name"][opened.select(f"fold_{number}", "test")])
        assert validation and not train & validation and not validation & test and not train & test
        assert len(train | validation | test) == 12


def test_odd_and_damaged_videos(estimator, tmp_path):
    root = tmp_path / "mine"
    good = write(root / "a" / "good.mp4", range(0, 30, 2))
    write(root / "b" / "good clip.MOV", range(0, 30, 2))
    write(root / "b" / "no_suffix", range(0, 30, 2))
    write(root / "a" / "fast.mp4", range(60), rate=120)
    write(root / "a" / "left early.mp4", [*range(0, 20, 2), *[None] * 4])
    write(root / "a" / "nobody.mp4", [None] * 8)
    write(root / "a" / "hardly.mp4", [*[None] * 14, 3, 4])
    write(root / "a" / "one.mp4", [5])
    (root / "a" / "cut.mp4").write_bytes(good.read_bytes()[:400])
    (root / "a" / "text.mp4").write_text("no video")
    (root / "a" / "empty.mp4").write_bytes(b"")
    (root / "a" / "notes.txt").write_text("a file beside the videos")
    turned(good, 90)
    write(root / "nowhere.mp4", range(4))
    with av.open(str(root / "a" / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode()])
    opened = prepare(root, tmp_path / "out", named_subjects=False, images=True)
    names = ["a/fast", "a/good", "a/left early", "a/turned_90", "b/good clip", "b/no_suffix"]
    assert opened.index["name"].tolist() == names and opened.clips_without(np.arange(6), "images") == []
    # 120 frames a second become 15; the end without a person is left out.
    assert opened.index["num_frames"].tolist() == [8, 15, 10, 15, 15, 15]
    upright, turned_90 = opened.skeleton(1), opened.skeleton(3)
    assert [np.ptp(clip[0, :, 0, axis]).round() for clip in (upright, turned_90) for axis in (0, 1)] == [28, 0, 0, 28]
    reasons = {item["name"]: item["reason"] for item in json.loads((tmp_path / "out/set_aside.json").read_text())}
    expected = {
        "a/nobody": "no person found in any of its 8 frames",
        "a/hardly": "seen in only 2 of 16 frames",
        "a/one": "number of frames is 1; a clip has at least 2",
        "a/cut": "not a readable video|no frame can be decoded",
        "a/text": "not a readable video",
        "a/empty": "not a readable video",
        "a/sound": "no video in it",
        "a/notes.txt": "not a video, by its suffix",
        "nowhere.mp4": "in no class's folder",
    }
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert any(each in reasons[name] for each in reason.split("|")), (name, reasons[name])


@pytest.mark.parametrize(
    ("rates", "fps", "stated", "others"),
    [
        ((10, 10), 15.0, 10, None),  # fewer than --fps
        ((30, 60), 15.0, 15, None),  # thinned out
        ((30, 30), None, 30, None),
        ((10, 30, 30), 15.0, 15, "1 clip has another rate: x/0 (10). With --fps=10 and another --work"),
    ],
)
def test_records_state_the_frame_rate_of_their_clips(estimator, tmp_path, capsys, rates, fps, stated, others):
    """A new video is then looked at as often as those that train."""
    for number, rate in enumerate(rates):
        write(tmp_path / "mine/x" / f"{number}.mp4", range(rate), rate=rate)  # one second
    settings = video_poses.Settings(fps=fps)
    opened = prepare(tmp_path / "mine", tmp_path / "out", named_subjects=False, settings=settings)
    assert opened.info.frame_rate == stated and stated in opened.index["num_frames"]
    printed = capsys.readouterr().out
    assert others in printed if others else "another rate" not in printed


def test_frame_rates_that_hardly_differ_count_as_the_same():
    assert videos.common_rate({"a": 29.97, "b": 30.0, "c": 30.02, "d": 15.0, "e": 15.0}) == 30.02
    assert videos.common_rate({"a": 10.0, "b": 15.0}) == 15.0


def test_a_table_cuts_clips_out_of_long_videos(estimator, tmp_path):
    write(tmp_path / "long.mp4", range(75))  # 5 s
    write(tmp_path / "short.mp4", range(0, 30, 2))
    table = tmp_path / "clips.csv"
    table.write_text(
        "file,label,subject,start,end\nlong.mp4,a,P,1,2\nlong.mp4,b,P,2,4.2\nshort.mp4,a,Q,,\n"
        "short.mp4,b,Q,0.2,\ngone.mp4,a,Q,,\nshort.mp4,b,Q,9,\n"
    )
    opened = prepare(
        tmp_path, tmp_path / "out", labels=table, named_subjects=False, divide=Divide(test_subjects=("Q",))
    )
    assert opened.index["name"].tolist() == ["long@1-2", "long@2-4.2", "short", "short@0.2-"]
    lefts = [
        [float((clip[0, t, :, 0] - _SHAPE[:, 0] * 12).mean()) for t in (0, -1)]
        for clip in map(opened.skeleton, range(4))
    ]
    np.testing.assert_allclose(lefts, [(15, 29), (30, 62), (0, 28), (6, 28)], atol=1)
    assert opened.index["subject"][opened.select("split", "test")].tolist() == [2, 2]
    reasons = {item["name"]: item["reason"] for item in json.loads((tmp_path / "out/set_aside.json").read_text())}
    assert "no such file" in reasons["gone.mp4"] and "it ends before 9 s" in reasons["short@9-"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{root}/outside.mp4,walk,ann", "line 2: .*outside.mp4 is not in .*mine; set --videos to a folder"),
        ("a.mp4,pick, up", None),
        ("a.mp4,pick, up,ann", "line 2: more cells than the 3 columns"),
        ("a.mp4,{long},ann", "not a line of a CSV file"),
    ],
)
def test_lines_of_a_table_that_would_be_read_wrongly(tmp_path, line, message):
    """A person after a comma in a label, for instance, would be lost without a word."""
    root = tmp_path / "mine"
    root.mkdir()
    for path in (root / "a.mp4", tmp_path / "outside.mp4"):
        path.touch()
    table = tmp_path / "clips.csv"
    table.write_text("file,label,subject\n" + line.format(root=tmp_path, long="w" * 200_000) + "\n")
    if message is None:
        assert video_lists.in_table(table, root).clips[0].subject == "up"
        return
    with pytest.raises(PreparationError, match=message):
        video_lists.in_table(table, root)


def test_a_class_behind_a_link_is_not_lost_without_a_word(tmp_path):
    for name in ("mine/kick/b.mp4", "elsewhere/a.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "mine" / "wave").symlink_to(tmp_path / "elsewhere")
    listing = video_lists.in_folders(tmp_path / "mine", False)
    assert [clip.name for clip in listing.clips] == ["kick/b"]
    (left_out,) = listing.set_aside
    assert left_out.name == "wave" and left_out.reason.startswith("a link to a folder")
    with sources.open_source(tmp_path / "mine", ".mp4", tmp_path / "scratch") as (files, set_aside):
        assert list(files) == ["b"] and [item.name for item in set_aside] == ["wave"]


def test_names_of_a_table(tmp_path, capsys):
    """A misspelt column is noted; clips that differ in hundredths of a second, hours after the beginning, differ.

    A class name may have a line separator of Unicode in it: only a new line ends a row.
    """
    (tmp_path / "a.mp4").touch()
    table = tmp_path / "clips.csv"
    table.write_text("file,label,subjects,start\na.mp4,x,ann,12345.61\na.mp4,x,ann,12345.64\n")
    names = [clip.name for clip in video_lists.in_table(table, tmp_path).clips]
    assert names == ["a@12345.61-", "a@12345.64-"]
    assert "not read: subjects" in capsys.readouterr().out
    table.write_text("file,label\na.mp4,sit\u2028down\n", encoding="utf-8")
    assert [clip.label for clip in video_lists.in_table(table, tmp_path).clips] == ["sit\u2028down"]
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(PreparationError, match=r"pipe\.csv: not a readable CSV file"):
        video_lists.in_table(tmp_path / "pipe.csv", tmp_path)


def test_shards_that_begin_at_the_same_time(tmp_path):
    """One may still be writing the settings when the other looks into the folder."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".about.json.0123").touch()
    folder = video_poses.WorkFolder(tmp_path / "work", video_poses.Settings())
    folder.claim()
    folder.claim()
    with pytest.raises(PreparationError, match="other settings"):
        video_poses.WorkFolder(tmp_path / "work", video_poses.Settings(persons=2)).claim()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed=-1"], "--seed -1: expected a seed of at least 0"),
        (["--test_fraction=0.5", "--validation_fraction=0.5"], "leave no clip to train"),
        (["--folds=2", "--validation_fraction=0.8"], "no such folder"),  # --test_fraction is not used
    ],
)
def test_options_that_do_not_fit(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        videos.main([f"--videos={tmp_path / 'none'}", f"--out={tmp_path / 'out'}", *arguments])
    assert message in capsys.readouterr().err + str(ended.value.code)


@pytest.mark.parametrize(("persons", "bodies"), [(1, [1, 1]), (2, [2, 1])])
def test_the_persons_who_act_most(estimator, tmp_path, capsys, persons, bodies):
    """The one on the right moves more; who is seen in no frame is no body."""
    write(tmp_path / "mine/x/two.mp4", [(place, 30 + 3 * place) for place in range(12)])
    write(tmp_path / "mine/y/one.mp4", range(12))
    settings = video_poses.Settings(persons=persons)
    opened = prepare(tmp_path / "mine", tmp_path / "out", named_subjects=False, settings=settings, images=True)
    assert opened.index["num_bodies"].tolist() == bodies
    assert np.ptp(opened.skeleton(0)[0, :, 0, 0]) == pytest.approx(33, abs=1)
    assert ("one who acts most is kept" in (tmp_path / "out.work/notes.txt").read_text()) if persons == 1 else True


def test_lists(estimator, tmp_path, capsys):
    for name in "abcde":
        write(tmp_path / "mine/x" / f"{name}.mp4", range(0, 20, 2))
    lists = {"train": ["x/a", "x/b.mp4"], "val": ["x/c"], "test": ["x/d", "x/misspelt"]}
    (tmp_path / "lists.json").write_text(json.dumps(lists))
    divide = Divide(split=tmp_path / "lists.json")
    opened = prepare(tmp_path / "mine", tmp_path / "out", named_subjects=False, divide=divide)
    names = [
        opened.index["name"][opened.select(protocol, part)].tolist()
        for protocol, part in (("split", "train"), ("split", "test"), ("split_validation", "test"))
    ]
    assert names == [["x/a", "x/b"], ["x/d"], ["x/c"]]
    printed = capsys.readouterr().out
    assert printed.count("1 name is no clip's, among them 'x/misspelt'") == 1
    assert printed.count("1 clip is in no list, so it neither trains nor tests, among them 'x/e'") == 1


@pytest.mark.parametrize(
    ("lists", "train", "test"),
    [
        ({"train": ["x/a"]}, ["x/a"], ["x/b", "x/c"]),
        ({"test": ["x/a"]}, ["x/b", "x/c"], ["x/a"]),
        ({"test": ["x/a"], "train": [], "val": ["x/b"]}, ["x/c"], ["x/a"]),
        ({"val": ["x/b"]}, None, None),
    ],
)
def test_clips_in_no_list_are_of_the_part_that_is_not_listed(tmp_path, capsys, lists, train, test):
    for name in "abc":
        path = tmp_path / "mine/x" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "lists.json").write_text(json.dumps(lists))
    listing, divide = video_lists.in_folders(tmp_path / "mine", False), Divide(split=tmp_path / "lists.json")
    if train is None:
        with pytest.raises(PreparationError, match="neither clips that train nor clips that test"):
            videos.divisions(listing.clips, divide)
        return
    divided = videos.divisions(listing.clips, divide)["split"]
    assert (sorted(divided.train), sorted(divided.test)) == (train, test)
    videos.check_division(listing, divide)
    part, others = ("test", test) if lists.get("train") else ("train", train)
    assert f"no list {part}, so the clips in no other list {part} ({len(others)})" in capsys.readouterr().out


def test_a_clip_without_an_image_is_kept_and_not_counted_as_left_out(estimator, tmp_path, capsys):
    for name in "ab":
        write(tmp_path / "mine/x" / f"{name}.mp4", range(0, 20, 2))
    prepare(tmp_path / "mine", tmp_path / "out", named_subjects=False, images=True)
    picture = min((tmp_path / "out.work" / "images").glob("*.jpg"))
    picture.with_suffix(".set_aside").write_text("nobody in it")
    picture.unlink()
    capsys.readouterr()
    opened = prepare(tmp_path / "mine", tmp_path / "out", named_subjects=False, images=True, overwrite=True)
    assert len(opened) == 2 and opened.clips_without(np.arange(2), "images") == ["x/a"]
    printed = capsys.readouterr().out
    assert "1 clip kept without an image, listed in" in printed and "set aside: " not in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"divide": Divide(test_subjects=("eve",))}, "'eve' is none of the persons"),
        ({"divide": Divide(folds=5)}, "more than the persons or videos to divide, 4"),
        ({"layout": "nw_ucla", "settings": video_poses.Settings(fps=5)}, "other settings"),
        ({"work": "elsewhere"}, "something else"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_work(estimator, folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.tex").touch()
    video_poses.WorkFolder(tmp_path / "out.work", video_poses.Settings()).claim()
    with pytest.raises(PreparationError, match=message):
        prepare(folder, tmp_path / "out", **options)
    assert estimator.clips == 0


def test_dealing_keeps_the_shares_of_every_class():
    random = np.random.default_rng(0)
    counts = random.integers(0, 4, (60, 5))
    parts = dealing.deal(counts, [0.6, 0.25, 0.15], seed=1)
    shares = np.stack([counts[parts == part].sum(axis=0) for part in range(3)]) / counts.sum(axis=0)
    np.testing.assert_allclose(shares, np.broadcast_to([[0.6], [0.25], [0.15]], shares.shape), atol=0.05)
    assert (dealing.deal(counts, [0.6, 0.25, 0.15], seed=2) != parts).any()
    few = np.repeat(np.eye(2, dtype=int), [4, 2], axis=0)  # a class of four clips, one of two
    assert (few.T @ (dealing.deal(few, [0.75, 0.25], seed=0) == 1)).tolist() == [1, 1]


def test_the_config_needs_only_the_records(estimator, folder, tmp_path):
    prepare(folder, tmp_path / "out", divide=Divide(folds=2), images=True)
    for arguments, image in (("fold_1", True), ("fold_2,bone,skeleton_only", False)):
        config = config_files.load(
            f"videos:{arguments}", [("data.records", str(tmp_path / "out")), ("batch_size", "4")]
        )
        task = build_training_task(config)
        assert task.skeleton.num_classes == 3 and (config.loss.contrastive_weight > 0) is image
        assert describe(task.config, task.skeleton.records).frame_rate == 15  # the default of data_prep.videos
    with pytest.raises(ValueError, match="'skeleton'"):
        videos_config.get_config("split,joint,skeleton")


@pytest.mark.skipif(not CLIP.is_file(), reason=f"no {CLIP.name} in MMCL_TEST_DATA/data")
def test_a_real_clip(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed (the extra `video`)")
    if not all((model_files.cache_folder() / model_files.FILES[name].name).is_file() for name in ("detector", "full")):
        pytest.skip("BlazePose's model files are missing: make setup-video")
    table = tmp_path / "clips.csv"
    table.write_text(f"file,label,subject,start,end\n{CLIP.name},drink,P1,0.5,1.5\n{CLIP.name},stand,P2,2,3\n")
    opened = prepare(
        CLIP.parent,
        tmp_path / "out",
        labels=table,
        named_subjects=False,
        settings=video_poses.Settings(fps=5),
        divide=Divide(test_subjects=("P2",)),
        layout="ntu",
        images=True,
    )
    assert opened.index["num_frames"].tolist() == [5, 5] and opened.num_joints == 25
    clip = opened.skeleton(0)
    height = np.ptp(clip[0, 0, :, 1])
    assert 300 < height < 450  # pixels
    joints = LAYOUTS["ntu"].joints
    assert (clip[0, :, joints.index("head"), 1] < clip[0, :, joints.index("left ankle"), 1]).all()
    assert opened.clips_without(np.arange(2), "images") == []
