"""NTU RGB+D preparation: names, records, configs, mosaics; killed, sharded, damaged.

The test of the real clip runs if MMCL_TEST_DATA is set.
"""

import dataclasses
import functools
import io
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from configs import ntu60, ntu120
from data_prep import ntu
from data_prep.formats import ntu_clips
from data_prep.images import mosaics, person_crops, videos
from data_prep.preparation import image_request
from mmcl_jax.data import input_pipeline, ntu_skeletons, records
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.task import build_training_task
from tests.helpers import golden, ntu_files, ntu_reference

av = pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")
ROOT = pathlib.Path(__file__).parents[2]


def test_names():
    assert str(ntu_clips.parse_name("S001C002P003R002A113")) == "S001C002P003R002A113"
    assert dataclasses.astuple(ntu_clips.parse_name("S001C002P003R002A113")) == (1, 2, 3, 2, 113)
    for name in ("S001C002P003R002A121", "S001C002P003R002A000", "S001C002P003R002", "S01C02P03R02A13", "notes"):
        assert ntu_clips.parse_name(name) is None
    assert len(ntu_clips.ACTIONS) == len(set(ntu_clips.ACTIONS)) == 120


def test_missing_skeletons_account_for_the_published_sizes():
    """Complete datasets less the listed clips are the published numbers, in every part of every protocol."""
    names = [ntu_clips.parse_name(name) for name in ntu_clips.missing_skeletons()]
    index = {
        "label": np.array([name.action - 1 for name in names]),
        "subject": np.array([name.performer for name in names]),
        "camera": np.array([name.camera for name in names]),
        "setup": np.array([name.setup for name in names]),
    }
    complete = {
        "ntu60_xsub": (40_320, 16_560),
        "ntu60_xview": (37_920, 18_960),
        "ntu120_xsub": (63_360, 51_120),
        "ntu120_xset": (54_720, 59_760),
    }
    assert len(names) == 535
    for protocol, sizes in complete.items():
        missing = records.PROTOCOLS["ntu"][protocol].masks(index)
        parts = ntu_clips.NUM_CLIPS[protocol].values()
        assert [size - mask.sum() for size, mask in zip(sizes, missing, strict=True)] == list(parts)


def test_inventory():
    lines = "\n".join(ntu_clips.inventory(["S001C001P001R001A001", "S001C002P001R001A001"]))
    assert "NTU RGB+D 60: 2 of 56,578 clips" in lines
    assert "A001 939, A002 943" not in lines
    assert "S001 178" in lines
    assert "NTU RGB+D 120" not in lines
    both = "\n".join(ntu_clips.inventory(["S001C001P001R001A001", "S032C002P001R001A120"]))
    assert "NTU RGB+D 60: 1 of 56,578 clips" in both
    assert "NTU RGB+D 120: 2 of 113,945 clips" in both
    assert "S001 179, S032 179" in both.replace("\n    ", " ")


def test_setups_and_performers_that_the_dataset_does_not_have_are_noted():
    names = ["S001C001P001R001A001", "S033C001P001R001A001", "S001C001P107R001A001", "S032C003P106R002A120"]
    setup, performer = ntu_clips.out_of_range(names)
    assert setup.startswith("NOTE: 1 clip has a setup beyond 32") and names[1] in setup
    assert performer.startswith("NOTE: 1 clip has a performer beyond 106") and names[2] in performer


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    """Skeletons of two one-person clips and a two-person clip, and videos of two of them."""
    folder = tmp_path_factory.mktemp("ntu")
    (folder / "skeletons" / "deep").mkdir(parents=True)
    (folder / "videos").mkdir()
    for name, text in (
        ("deep/S001C001P001R001A001", ntu_files.one_person()),
        ("S002C002P003R002A060", ntu_files.two_persons()),
        ("S018C003P045R001A061", ntu_files.one_person(30, seed=5)),
    ):
        (folder / "skeletons" / f"{name}.skeleton").write_text(text)
    boxes = ntu_files.rectangles(20)
    ntu_files.write_video(folder / "videos" / "S001C001P001R001A001_rgb.avi", 20, rectangles=boxes)
    ntu_files.write_video(folder / "videos" / "S018C003P045R001A061_rgb.avi", 30, size=(270, 480))
    return folder


def prepare(source: pathlib.Path, out: pathlib.Path, **options) -> records.Records:
    wanted = {name: options.pop(name) for name in ("videos", "images", "shard") if name in options}
    ntu.prepare(source / "skeletons", out, image_request.Request(**wanted), **{"workers": 1, **options})
    return records.Records(out)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def set_aside(out) -> dict[str, str]:
    return {item["name"]: item["reason"] for item in json.loads((out / "set_aside.json").read_text())}


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("records") / "ntu"
    prepare(source, out, videos=source / "videos", workers=2)
    return out


def test_records(source, prepared):
    opened = records.Records(prepared)
    assert opened.index["name"].tolist() == ["S001C001P001R001A001", "S002C002P003R002A060", "S018C003P045R001A061"]
    fields = {field: opened.index[field].tolist() for field in ("label", "subject", "camera", "setup", "replication")}
    assert fields == {
        "label": [0, 59, 60],
        "subject": [1, 3, 45],
        "camera": [1, 2, 3],
        "setup": [1, 2, 18],
        "replication": [1, 2, 1],
    }
    assert opened.index["num_bodies"].tolist() == [1, 2, 1]
    assert opened.info.image_source == "rgb"
    expected = ntu_reference.preprocess(source / "skeletons" / "S002C002P003R002A060.skeleton")[1]
    np.testing.assert_array_equal(ntu_reference.flat(opened.skeleton(1).transpose(1, 0, 2, 3)), expected)
    assert opened.clips_without(range(3), "images") == ["S002C002P003R002A060"]
    assert set_aside(prepared) == {
        "S002C002P003R002A060.jpg": "no mosaic of this clip; the clip is kept, without an image"
    }


def test_protocols_serve_both_datasets(prepared):
    opened = records.Records(prepared)
    rows = {
        protocol: [opened.select(protocol, part).tolist() for part in ("train", "test")]
        for protocol in ("ntu60_xsub", "ntu60_xview")
    }
    assert rows == {"ntu60_xsub": [[0], [1]], "ntu60_xview": [[1], [0]]}
    assert [opened.select("ntu120_xsub", part).tolist() for part in ("train", "test")] == [[0, 2], [1]]
    assert [opened.select("ntu120_xset", part).tolist() for part in ("train", "test")] == [[1, 2], [0]]
    assert len(opened.class_names("ntu120_xset")) == 120
    assert opened.class_names("ntu60_xview") == ntu_clips.ACTIONS[:60]


def test_configs():
    assert ntu120.get_config().to_json() == ntu120.get_config("xsub,joint").to_json()
    config = ntu60.get_config("xview,bone")
    assert (config.data.protocol, config.data.stream, config.data.absent_body) == ("ntu60_xview", "bone", "zeros")
    config = ntu120.get_config("xset")
    assert (config.data.protocol, config.data.stream, config.data.absent_body) == ("ntu120_xset", "joint", "copy")
    assert (config.batch_size, config.num_epochs, tuple(config.drop_epochs)) == (200, 110, (90, 100))
    assert (config.model.batch_norm_group_size, config.loss.contrastive_group_size) == (100, 100)
    assert ntu120.get_config("xsub,joint,skeleton_only").loss.refinement_weight == 0
    for module, arguments in ((ntu60, "xset"), (ntu120, "xview,joint"), (ntu60, "xsub,joint,fast"), (ntu60, "a,b,c,d")):
        with pytest.raises(ValueError, match=arguments.split(",")[-1]):
            module.get_config(arguments)


@pytest.mark.parametrize(("module", "num_classes", "absent"), [(ntu60, 60, "zeros"), (ntu120, 120, "copy")])
def test_the_absent_body_and_the_classes_are_the_config_s(prepared, module, num_classes, absent):
    config = module.get_config("xsub,joint,skeleton_only").unlock()
    config.update_from_flattened_dict(
        {"data.records": str(prepared), "batch_size": 1, "data.window": 8, "model.base_channels": 4}
    )
    config.model.batch_norm_group_size = config.loss.contrastive_group_size = None
    task = build_training_task(config)
    assert task.skeleton.num_classes == num_classes
    batch = next(input_pipeline.eval_batches(task.skeleton.records, task.rows[:1], batch_size=1))
    arguments = (batch["skeleton"][0], batch["frames"][0], batch["bodies"][0], jax.random.key(0))
    clip = np.asarray(jax.jit(task.skeleton.transform)(*arguments))
    assert clip.shape == (2, 8, 25, 3)
    assert clip[0].any()
    np.testing.assert_array_equal(clip[1], clip[0] if absent == "copy" else np.zeros_like(clip[0]))


def test_a_killed_command_goes_on_and_writes_the_same_bytes(source, prepared, tmp_path):
    arguments = [f"--out={tmp_path / 'ntu'}", *(f"--{kind}={source / kind}" for kind in ("skeletons", "videos"))]
    run = functools.partial(subprocess.run, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    killed = run([sys.executable, "-m", "tests.helpers.interrupted", "mosaics", "1", *arguments])
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    assert not (tmp_path / "ntu").exists()
    finished = run([sys.executable, "-m", "data_prep.ntu", *arguments])
    assert finished.returncode == 0, finished.stdout
    assert re.search(r"[12] of 2 mosaics present", finished.stdout)
    assert contents(tmp_path / "ntu") == contents(prepared)


def test_sharded_crops_end_in_the_same_records(source, prepared, tmp_path):
    """One shard, a half-written file of a killed one, the other shard, then the records."""
    images = tmp_path / "images"
    request = image_request.Request(videos=source / "videos", images=images, shard=(1, 2))
    ntu.prepare(source / "skeletons", request=request, workers=1)
    assert [path.name for path in images.iterdir()] == ["S018C003P045R001A061.jpg"]
    (images / ".S001C001P001R001A001.jpg.0123").write_bytes(b"\xff\xd8\xff half")
    made = (images / "S018C003P045R001A061.jpg").stat().st_mtime_ns
    folders = {"--skeletons": source / "skeletons", "--videos": source / "videos", "--images": images}
    ntu.main([f"{option}={folder}" for option, folder in folders.items()] + ["--shard=0/2"])
    assert sorted(path.name for path in images.glob("S*")) == ["S001C001P001R001A001.jpg", "S018C003P045R001A061.jpg"]
    assert (images / "S018C003P045R001A061.jpg").stat().st_mtime_ns == made
    prepare(source, tmp_path / "ntu", images=images)
    assert contents(tmp_path / "ntu") == contents(prepared)


@pytest.mark.parametrize("shard", ["2/2", "-1/2", "1", "1/0", "a/b", ""])
def test_a_shard_that_is_none(source, shard, capsys):
    with pytest.raises(SystemExit):
        ntu.main(["--skeletons", "x", "--videos", "y", "--images", "z", f"--shard={shard}"])
    assert "is not i/n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out is needed"),
        (["--shard", "0/2"], "--shard makes mosaics: it needs --videos and --images"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, message, capsys):
    with pytest.raises(SystemExit):
        ntu.main(["--skeletons", "x", *arguments])
    assert message in capsys.readouterr().err


def test_folders_that_are_not_there(source, tmp_path):
    for options in ({"images": tmp_path / "nowhere"}, {"videos": tmp_path / "nowhere"}):
        with pytest.raises(PreparationError, match=r"nowhere: no such folder; set --(images|videos)"):
            prepare(source, tmp_path / "out", **options)
    with pytest.raises(PreparationError, match=r"no video of any of the 3 clips; expected .*S001.*_rgb\.avi"):
        prepare(source, tmp_path / "out", videos=source / "skeletons")
    with pytest.raises(PreparationError, match="no such file or folder"):
        ntu.prepare(tmp_path / "nowhere", tmp_path / "out")


def test_no_good_clip_is_lost_among_damaged_ones(source, tmp_path):
    folder = tmp_path / "skeletons"
    shutil.copytree(source / "skeletons", folder)
    for number, damaged in enumerate(ntu_files.damaged_files(60)):
        (folder / f"S003C001P{number + 1:03d}R001A002.skeleton").write_bytes(damaged)
    listed = "S001C002P005R002A008"
    for name in (listed, "S001C001P001R001A121", "readme", "S001C001P001R001A001_copy"):
        (folder / f"{name}.skeleton").write_text(ntu_files.one_person())
    (folder / "S001C001P001R001A005.skeleton").mkdir()
    opened = prepare(tmp_path, tmp_path / "out")
    names = opened.index["name"].tolist()
    good = {"S001C001P001R001A001", "S002C002P003R002A060", "S018C003P045R001A061"}
    assert good < set(names)
    reasons = set_aside(tmp_path / "out")
    assert len(names) + len(reasons) == 3 + 60 + 4 + 1
    assert all(reasons.values())
    assert reasons["S001C001P001R001A005.skeleton"].startswith("a folder, ")
    assert "the name is not of the form" in reasons["S001C001P001R001A121.skeleton"]
    assert list(reasons)[-1] == f"{listed}.skeleton"
    for row in range(len(opened)):
        assert np.isfinite(opened.skeleton(row)).all()


def test_mosaic_shows_the_person_of_each_moment_tightly(prepared):
    """The figure is a red rectangle around the joints: each crop is red but for the margin."""
    picture = records.Records(prepared).image(0, 480).astype(int)
    assert picture.shape == (480, 480, 3)
    for crop in np.split(picture, 5, axis=1):
        red = (crop[..., 0] > 150) & (crop[..., 1] < 90)
        assert 0.35 < red.mean() < 0.9
        assert red[240, 48]
        assert not red[:20].any()


def test_a_video_made_smaller_and_moments_in_order(prepared):
    """Frame n of the second video has the gray value 2 n."""
    picture = records.Records(prepared).image(2, 480).mean(axis=2)
    shades = [crop.mean() for crop in np.split(picture, 5, axis=1)]
    np.testing.assert_allclose(shades, 2 * person_crops.uniform_frame_indices(30), atol=3)


def actors_of(text: str):
    return ntu_skeletons.denoise(ntu_skeletons.parse(text.encode())).bodies


def test_boxes_of_one_and_two_persons():
    actors = actors_of(ntu_files.two_persons())
    alone, other, both = (ntu.person_box(shown, 3) for shown in (actors[:1], actors[1:], actors))
    assert both[0] <= min(alone[0], other[0]) + 40
    assert both[2] >= max(alone[2], other[2]) - 1
    assert both[2] - both[0] > 1.5 * (alone[2] - alone[0])
    assert {50, 60, 106, 120} <= ntu_clips.TWO_PERSON_ACTIONS
    assert not {49, 61, 105} & ntu_clips.TWO_PERSON_ACTIONS


def test_a_frame_without_a_person_gives_way_to_the_nearest_with():
    joints = ntu_files.make_joints(np.random.default_rng(0), 20, motion=0.02)
    frames = [[(1, frame)] if 5 <= number < 15 else [] for number, frame in enumerate(joints)]
    box = functools.partial(ntu.person_box, actors_of(ntu_files.to_text(frames)))
    assert box(4) is None
    assert box(5) is not None
    chosen = person_crops.sampled_frames(20, box)
    assert [frame for frame, _ in chosen] == [5, 6, 10, 14, 14]
    assert person_crops.sampled_frames(20, lambda frame: None) is None


def test_joints_out_of_the_camera_s_reach_are_left_out():
    (actors,) = actors_of(ntu_files.one_person())
    (body,) = actors
    whole = ntu.person_box((actors,), 0)
    body.colors[0, 5:10] = np.nan
    left, top, right, bottom = ntu.person_box((actors,), 0)
    assert (top, bottom) == (whole[1], whole[3])
    assert (left >= whole[0]) and (right <= whole[2])
    body.colors[0, 10:] = np.inf
    assert ntu.person_box((actors,), 0) is None


def test_bad_videos_and_mosaics_cost_the_image_alone(source, tmp_path):
    folder, images = tmp_path / "videos", tmp_path / "images"
    shutil.copytree(source / "videos", folder)
    whole = (folder / "S001C001P001R001A001_rgb.avi").read_bytes()
    (folder / "S001C001P001R001A001_rgb.avi").write_bytes(whole[: len(whole) // 2])
    (folder / "S002C002P003R002A060_rgb.avi").write_bytes(b"no video")
    images.mkdir()
    (images / "S018C003P045R001A061.jpg").write_bytes(ntu_image(480, 480)[:-200])
    opened = prepare(source, tmp_path / "out", videos=folder, images=images)
    assert len(opened) == 3
    assert not opened.has_images
    reasons = set_aside(tmp_path / "out")
    assert "S001C001P001R001A001_rgb.avi: cut short: frame" in reasons["S001C001P001R001A001.jpg"]
    assert "S002C002P003R002A060_rgb.avi: not a readable video" in reasons["S002C002P003R002A060.jpg"]
    assert "a broken JPEG" in reasons["S018C003P045R001A061.jpg"]
    shutil.copy(source / "videos" / "S001C001P001R001A001_rgb.avi", folder)
    (images / "S018C003P045R001A061.jpg").write_bytes(ntu_image(480, 270))
    opened = prepare(source, tmp_path / "again", videos=folder, images=images)
    assert opened.clips_without(range(3), "images") == ["S002C002P003R002A060", "S018C003P045R001A061"]
    assert "a mosaic of 480x270, expected 480x480" in set_aside(tmp_path / "again")["S018C003P045R001A061.jpg"]


def ntu_image(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


@golden.require_golden
def test_the_real_clip(tmp_path):
    """A woman drinks: frames equal those of decoding the whole video, and she stands in the middle of each crop."""
    video = golden.golden_folder().parent / "data" / f"{ntu_files.REAL_CLIP}_rgb.avi"
    skeleton = golden.golden_folder() / "ntu_raw" / f"{ntu_files.REAL_CLIP}.skeleton"
    clip = ntu_skeletons.read(skeleton)
    box = functools.partial(ntu.person_box, ntu_skeletons.denoise(clip).bodies)
    chosen = person_crops.sampled_frames(clip.num_frames, box)
    assert [frame for frame, _ in chosen] == [10, 30, 51, 72, 92]
    with av.open(str(video)) as container:
        whole = {number: frame for number, frame in enumerate(container.decode(video=0)) if number in (10, 92)}
    for number, picture in videos.read_frames(video, whole).items():
        np.testing.assert_array_equal(picture, whole[number].to_ndarray(format="rgb24"))
    (footage,) = ntu.find_footage({ntu_files.REAL_CLIP: skeleton}, video.parent)
    picture = np.array(Image.open(io.BytesIO(mosaics.by_skeleton(footage)))).astype(int)
    for crop in np.split(picture, 5, axis=1):
        dark = crop.max(axis=2) < 60  # her black shirt, before a white wall
        assert dark[120:200, 30:66].mean() > 0.6
        assert dark[40:200, :8].mean() < 0.1
