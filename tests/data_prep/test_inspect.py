"""The page about records: it shows their contents, and a damaged part affects nothing else."""

import base64
import collections
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import inspect
from data_prep.images import person_crops
from mmcl_jax.data import records

HOSTILE = "</script><script>alert(1)</script>"


def page_data(path) -> dict:
    """The JSON of a page."""
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(block)


@pytest.fixture(scope="module")
def page(tiny_records, tmp_path_factory):
    return inspect.write_page(tiny_records, tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture
def copied(tiny_records, tmp_path):
    """Records to damage."""
    return shutil.copytree(tiny_records, tmp_path / "records")


def odd_records(folder) -> records.Records:
    """2-D joints with confidence, two bodies, hostile names, clips without a text, things set aside."""
    info = records.DatasetInfo(
        dataset="odd",
        layout="coco",
        channels=("x", "y", "confidence"),
        units="pixels",
        class_names=(HOSTILE, "nobody does it", "wave"),
        image_source=None,
        preprocessing=HOSTILE,
        protocols={"own": records.Protocol("camera", (1,))},
    )
    rng = np.random.default_rng(0)
    clips = [
        records.Clip(
            name=f"{HOSTILE}{number}",
            label=number % 2 * 2,
            subject=number,
            camera=1 + number % 3,
            setup=1,
            replication=1,
            skeleton=rng.uniform(0, 1, (5 + number, 2, 17, 3)).astype(np.float32),
            texts={"m/q/wide": np.arange(20.0), "m/q/narrow": np.array([30522.0, 2748, 102])} if number else {},
        )
        for number in range(6)
    ]
    set_aside = [records.SetAside(f"bad{number}.json", f"{number} joints, expected 17") for number in range(3)]
    records.write_records(folder, info, clips, set_aside=[*set_aside, records.SetAside("x", HOSTILE)])
    return records.Records(folder)


def test_overview(page, tiny_records):
    data = page_data(page)
    facts = dict(data["facts"])
    assert (facts["clips"], facts["classes"], facts["subjects"]) == ("36", "12 of 12", "3")
    assert facts["layout"] == "ntu, 25 joints"
    assert facts["bodies per clip"] == "1: 30, 2: 6"
    assert data["protocols"] == [
        {
            "name": "xsub",
            "train": 24,
            "test": 12,
            "classes": 12,
            "rule": "clips of subject 1, 2, 3, 5, 6, 8, 9 train, all others test",
        }
    ]
    assert data["counts"]["class"][0] == ["drink", 3]
    assert data["counts"]["subject"] == [["1", 12], ["2", 12], ["4", 12]]
    assert data["lengths"]["first"] == records.Records(tiny_records).index["num_frames"].min()
    assert sum(data["lengths"]["counts"]) == 36
    assert data["set_aside"] == {"problem": None, "total": 0, "reasons": [], "items": []}
    assert [(one["kind"], one["count"]) for one in data["lacking"]] == [
        ("images", 0),
        ("stand_in/holding/token_ids", 0),
    ]


def test_clips(page, tiny_records):
    opened = records.Records(tiny_records)
    data = page_data(page)
    assert [clip["label"] for clip in data["clips"]] == list(range(12))
    clip = data["clips"][-1]
    row = opened.index["name"].tolist().index(clip["name"])
    for field in records.INDEX_FIELDS:
        assert clip[field] == opened.index[field][row]
    assert clip["skeleton"]["frames"] == opened.skeleton(row).shape[1]
    assert data["layout"]["up"] == [1, 1]
    stored = base64.b64decode(clip["image"]["jpeg"].removeprefix("data:image/jpeg;base64,"))
    assert stored == opened.image_file(row)
    assert clip["image"]["note"] == f"480 x 480, {len(stored):,} bytes"
    (text,) = clip["texts"]
    assert text["feature"] in ("30522, 2748, 102", "30522, 2053, 102")


def test_the_page_is_the_same_again(page, tiny_records, tmp_path):
    assert inspect.write_page(tiny_records, tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_named_clips(tiny_records, tmp_path, capsys):
    out = tmp_path / "page.html"
    names = ["A012S04C2R1", "A001S02C2R1"]
    inspect.main([str(tiny_records), f"--out={out}", *(f"--name={name}" for name in [*names, names[0]])])
    assert "2 of 36 clips" in capsys.readouterr().out
    assert [clip["name"] for clip in page_data(out)["clips"]] == names


def test_hostile_text_lost_texts_and_what_was_set_aside(tmp_path):
    odd_records(tmp_path / "odd")
    page = inspect.write_page(tmp_path / "odd", clips=6)
    assert page == tmp_path / "odd.html"
    assert "alert" not in re.sub(r'id="data">.*?</script>', "", page.read_text(), count=1, flags=re.DOTALL)
    data = page_data(page)
    assert data["counts"]["class"] == [[HOSTILE, 3], ["nobody does it", 0], ["wave", 3]]
    assert data["set_aside"]["total"] == 4
    assert data["set_aside"]["reasons"] == [["… joints, expected …", 3], [HOSTILE.replace("1", "…"), 1]]
    assert data["protocols"][0]["name"] == "own"
    assert [(one["count"], one["names"]) for one in data["lacking"]] == [(1, [f"{HOSTILE}0"])] * 2
    texts = {clip["name"]: clip["texts"] for clip in data["clips"]}
    assert [text["missing"] for text in texts[f"{HOSTILE}0"]] == [True, True]
    narrow, wide = (text["feature"] for text in texts[f"{HOSTILE}3"])
    assert narrow == "30522, 2748, 102"
    assert wide.startswith("20 numbers from 0 to 19, mean 9.5, standard deviation 5.766; they begin 0, 1, 2, 3")
    assert data["layout"]["up"] == [1, -1] or data["layout"]["coordinates"] == 2
    assert all("confidence" in clip["skeleton"] for clip in data["clips"])


def test_questions_and_answers(copied):
    """As `data_prep.text_features` adds them; one clip has none."""
    from tensorflow_datasets import features

    opened = records.Records(copied)
    schema = {"feature": features.Tensor(shape=(2,), dtype=np.float32), "answer": features.Text()}
    dataset = records.DatasetWriter(copied / "text/blip/cup/answer_logits", schema, opened.info)
    for number, name in enumerate(opened.index["name"].tolist()[1:]):
        dataset.add(name, feature=np.log([0.25, 0.75]).astype(np.float32), answer=("no", "no", HOSTILE)[number % 3])
    dataset.close()
    dataset.save_names()
    about = {"model": "some/blip", "revision": None, "question": "a cup?", "answers": ["yes", "no"], "width": 2}
    (dataset.folder / "about.json").write_text(json.dumps(about))
    data = page_data(inspect.write_page(copied, names=opened.index["name"].tolist()[:3]))
    asked = data["text_sets"][0]
    assert asked["name"] == "blip/cup/answer_logits"
    assert ["answers", "yes, no"] in asked["about"]
    assert (asked["counted"], asked["answers"]) == (35, [["no", 24], [HOSTILE, 11]])
    missing, said = (clip["texts"][0] for clip in data["clips"][:2])
    assert missing == {"set": "blip/cup/answer_logits", "question": "a cup?", "missing": True}
    assert (said["question"], said["answer"]) == ("a cup?", "no")
    assert said["feature"] == "yes: -1.386 (p = 0.25), no: -0.2877 (p = 0.75)"


def test_a_broken_image_costs_itself_alone(tmp_path):
    """A JPEG whose end is missing passes the builder, which looks at its beginning."""
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(256, size=(480, 480, 3), dtype=np.uint8)).save(stream, "JPEG")
    origin = person_crops.Origin((3, 9), ((0, 1, 20, 30), (5, 6, 7, 8)), (120, 160))
    known = person_crops.encode_jpeg(np.zeros((480, 480, 3), np.uint8), origin)
    images = [stream.getvalue(), stream.getvalue()[:-5000], None, known]
    info = records.DatasetInfo("odd", "ntu", "metres", ("one",), "rgb", "none")
    clips = [
        records.Clip(f"clip{number}", 0, 1, 1, 1, 1, rng.uniform(size=(4, 1, 25, 3)).astype(np.float32), image)
        for number, image in enumerate(images)
    ]
    records.write_records(tmp_path / "odd", info, clips)
    data = page_data(inspect.write_page(tmp_path / "odd", clips=4))
    whole, broken, none, boxed = (clip["image"] for clip in data["clips"])
    assert whole["jpeg"].startswith("data:image/jpeg;base64,")
    assert broken["problem"].startswith("the JPEG is broken (")
    assert none is None
    assert "origin" not in whole
    assert boxed["origin"] == {"frames": [3, 9], "boxes": [[0, 1, 20, 30], [5, 6, 7, 8]], "size": [120, 160]}
    assert data["lacking"][0]["names"] == ["clip2"]


def test_a_damaged_skeleton_image_or_text_set_is_said_in_its_place(copied):
    """ArrayRecord compresses blocks of rows, each with a checksum: some bytes of one block are wrong."""
    (path,) = (copied / "skeletons").glob("*.array_record-*")
    spoiled = bytearray(path.read_bytes())
    spoiled[len(spoiled) // 2] ^= 0xFF
    path.write_bytes(spoiled)
    (copied / "images" / "names.npy").write_bytes(b"")
    (copied / "text/stand_in/holding/token_ids/features.json").write_text("{")
    (copied / "set_aside.json").write_text("[{}]")
    data = page_data(inspect.write_page(copied, clips=36))
    unreadable = [clip["problem"] for clip in data["clips"] if "problem" in clip]
    assert 0 < len(unreadable) < 36
    assert all("cannot be read" in problem for problem in unreadable)
    assert [one["kind"] for one in data["problems"]] == ["images", "stand_in/holding/token_ids"]
    assert "names.npy: missing or corrupt" in data["problems"][0]["problem"]
    assert "set_aside.json cannot be read" in data["set_aside"]["problem"]
    assert not any("image" in clip or clip["texts"] for clip in data["clips"])


def test_pictures_and_skeletons_shrink_where_there_are_many(tiny_records, tmp_path, monkeypatch):
    monkeypatch.setattr(inspect, "_PICTURE_BYTES", 12 * 9000)
    monkeypatch.setattr(inspect, "_SKELETON_VALUES", 12 * 75 * 25)
    data = page_data(inspect.write_page(tiny_records, tmp_path / "page.html"))
    assert any(clip["skeleton"]["every"] > 1 for clip in data["clips"])
    for clip in data["clips"]:
        stored = base64.b64decode(clip["image"]["jpeg"].split(",")[1])
        assert len(stored) <= 9000
        assert Image.open(io.BytesIO(stored)).width >= 192
        assert clip["image"]["note"].endswith("shown smaller here")


@pytest.mark.parametrize("number", [1, 2, 5, 7, 12, 13, 19])
def test_a_sample_is_even(number):
    labels = np.repeat([0, 1, 3, 7, 8], [1, 2, 3, 5, 8])
    rows = inspect.sample(labels, number)
    assert len(set(rows.tolist())) == len(rows) == number
    counts = collections.Counter(labels[rows].tolist())
    assert len(counts) == min(number, 5)
    most = max(counts.values())
    assert all(count >= min(most - 1, (labels == label).sum()) for label, count in counts.items())
    assert len(inspect.sample(labels, 1000)) == 19


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{records}", "--name=A001S01C2R9"], r"no clip 'A001S01C2R9' among its 36; similar names: A001S01C2R1"),
        (["{tmp}/nowhere"], r"nowhere: no such folder; prepare it with"),
        (["{tmp}"], r"not a records folder \(no info.json\)"),
        (["{records}", "--out={tmp}/letter.html/page.html"], r"page.html: cannot be written .*choose another --out"),
        (["{records}", "--out={tmp}"], r"cannot be written \(.*directory.*choose another --out"),
        (["{records}", "--out={tmp}/letter.html"], r"letter.html: exists and is not a page of this command"),
    ],
)
def test_what_cannot_be_done_is_said(tiny_records, tmp_path, arguments, message):
    (tmp_path / "letter.html").write_text("<p>dear reader")
    places = {"records": tiny_records, "tmp": tmp_path}
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        inspect.main([argument.format(**places) for argument in arguments])
    assert (tmp_path / "letter.html").read_text() == "<p>dear reader"


def test_arguments_that_do_not_go_together(tiny_records, capsys):
    for options in (["--clips=0"], ["--clips=-1"], ["--clips=3", "--name=A001S01C2R1"]):
        with pytest.raises(SystemExit):
            inspect.main([str(tiny_records), *options])
    assert "exclude each other" in capsys.readouterr().err
