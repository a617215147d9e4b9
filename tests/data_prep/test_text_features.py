"""Text features: no interruption loses a clip. A stand-in answers; test_vqa has the models."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from data_prep import text_features
from data_prep.text import text_sets, vqa
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.task import find_text_set
from tests.helpers import locks_and_scratch
from tests.helpers.folders import contents
from tests.helpers.made_up_records import jpeg, make_clip, make_info

NUM_CLIPS = 11


class StandIn:
    """In place of a model: "yes" about light pictures, "no" about dark ones. Counts, and fails when told to."""

    revision, precision, device, width = "abc", "float32", "cpu", 4

    def __init__(self):
        self.pictures = 0
        self.fail_after = None
        self.failure: BaseException = KeyboardInterrupt()
        self.spoiled = ()

    def __call__(self, name, **options):
        return self

    def prompt(self, question):
        return question

    def load(self, pictures):
        return np.array([np.asarray(picture).mean() for picture in pictures])

    def see(self, loaded):
        return loaded

    def answer(self, seen, question, *, states, candidates):
        if self.fail_after is not None and self.pictures >= self.fail_after:
            raise self.failure
        self.pictures += len(seen)
        answers = []
        for place, mean in enumerate(seen):
            # As real arithmetic, a little different for every composition of a batch.
            noisy = np.full(4, mean + 1e-3 * len(seen) + 1e-3 * place + len(question), dtype=np.float32)
            if place in self.spoiled:
                noisy[1] = np.nan
            tokens = np.array([1, 7 if mean > 100 else 8, 2], dtype=np.float32)
            answers.append(vqa.Answer("yes" if mean > 100 else "no", 1, tokens, noisy, noisy[: len(candidates)]))
        return answers


@pytest.fixture
def stand_in(monkeypatch):
    model = StandIn()
    monkeypatch.setattr(vqa, "load_model", model)
    return model


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    """Records of clips that get lighter and lighter, with images and no text. Do not change them."""
    out = tmp_path_factory.mktemp("source") / "records"
    clips = (
        make_clip(number, image=jpeg(24, 24, (20 * number,) * 3), texts={}) for number in reversed(range(NUM_CLIPS))
    )
    records.write_records(out, make_info(), clips)
    return out


@pytest.fixture
def copied(source, tmp_path) -> pathlib.Path:
    return shutil.copytree(source, tmp_path / "records")


def command(root, *more: str) -> None:
    features = [f"--feature={feature}" for feature in ("token_ids", "decoder_states")]
    text_features.main([f"--records={root}", "--batch_size=3", *features, *more])


def test_features_stand_beside_what_was_there(copied, stand_in, capsys):
    before = contents(copied)
    command(copied)
    command(copied, "--question=cup=Is there a cup?", "--feature=answer_logits", "--answers=yes,no,a cup")
    after = contents(copied)
    assert {name: after[name] for name in before} == before
    opened = records.Records(copied)
    assert opened.text_sets == (
        *("blip/cup/answer_logits", "blip/cup/decoder_states", "blip/cup/token_ids"),
        *("blip/holding/decoder_states", "blip/holding/token_ids"),
    )
    assert opened.text_width("blip/cup/answer_logits") == 3
    for row, name in enumerate(opened.index["name"].tolist()):
        light = int(name[-2:]) * 20 > 100
        assert opened.text(row, "blip/holding/token_ids").tolist() == [1, 7 if light else 8, 2]
        assert opened.answer(row, "blip/cup/answer_logits") == ("yes" if light else "no")
        assert opened.text(row, "blip/holding/decoder_states").shape == (4,)
    about = json.loads((copied / "text/blip/cup/answer_logits/about.json").read_text())
    assert about["model"] == "Salesforce/blip-vqa-base"
    assert about["revision"] == "abc"
    assert about["question"] == "Is there a cup?"
    assert about["width"] == 3
    assert about["answers"] == ["yes", "no", "a cup"]
    output = capsys.readouterr().out
    assert "clips per second" in output
    assert "11 of 11 clips; 2 answers: 'no' 6, 'yes' 5" in output


def test_names_of_clips_may_be_those_of_folders(tmp_path, stand_in):
    """As those of `data_prep.videos` are, with any signs in them; each clip keeps its own feature."""
    names = ["sit down/ann_1 ü", "sit_down/ann_1 ü", ".hidden/../x", f"long/{'x' * 250}"]
    clips = [
        dataclasses.replace(make_clip(number, image=jpeg(24, 24, (80 * number,) * 3), texts={}), name=name)
        for number, name in enumerate(names)
    ]
    records.write_records(tmp_path / "records", make_info(), clips)
    command(tmp_path / "records")
    opened = records.Records(tmp_path / "records")
    answers = [opened.answer(row, "blip/holding/token_ids") for row in range(len(names))]
    assert opened.index["name"].tolist() == names and answers == ["no", "no", "yes", "yes"]
    command(tmp_path / "records")
    assert stand_in.pictures == len(names)  # the second time all are found
    assert len(list((tmp_path / "records.text").rglob("*.npz"))) == 2 * len(names)


def test_a_config_chooses_among_models_and_questions(copied, stand_in):
    text_features.main([f"--records={copied}", "--question=holding", "--question=head"])
    opened = records.Records(copied)
    assert find_text_set(opened, "blip/head") == "blip/head/token_ids"
    with pytest.raises(records.RecordsError, match=r"names 2 of the text sets"):
        find_text_set(opened, "blip")


@pytest.fixture
def uninterrupted(source, tmp_path, stand_in) -> dict:
    root = shutil.copytree(source, tmp_path / "uninterrupted")
    command(root)
    assert stand_in.pictures == NUM_CLIPS
    stand_in.pictures = 0
    return contents(root)


@pytest.mark.parametrize("done", [0, 3, 6, 9])
def test_killed_and_started_again_gives_the_same_bytes(copied, stand_in, uninterrupted, done):
    stand_in.fail_after = done
    with pytest.raises(SystemExit, match="interrupted; finished clips are kept, and the same command continues"):
        command(copied)
    assert not (copied / "text").exists()
    stand_in.fail_after = None
    command(copied)
    assert stand_in.pictures == NUM_CLIPS  # nothing was done twice
    assert contents(copied) == uninterrupted


def test_killed_between_two_files_of_a_batch(copied, stand_in, uninterrupted, monkeypatch):
    write, written = text_sets.Outputs.write, []

    def write_some(self, clip, *rest):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(clip)
        write(self, clip, *rest)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(text_sets.Outputs, "write", write_some)
        command(copied)
    command(copied)
    assert contents(copied) == uninterrupted


def test_shards_and_damaged_outputs_give_the_same_bytes(copied, stand_in, uninterrupted):
    for shard in (2, 0, 1):
        command(copied, f"--shard={shard}/3")
    assert stand_in.pictures == NUM_CLIPS
    assert not (copied / "text").exists()
    done = sorted((copied.parent / "records.text").rglob("clip*.npz"))
    assert len(done) == 2 * NUM_CLIPS
    os.truncate(done[0], 0)
    os.truncate(done[1], done[1].stat().st_size // 2)
    np.savez(done[2], feature=np.zeros(9, np.float32), answer=np.array("no"), num_tokens=np.array(1))
    np.savez(done[5], feature=np.full(4, np.nan, np.float32), answer=np.array("no"), num_tokens=np.array(1))
    done[7].write_bytes(b"\x80\x04K\x01.")  # a pickle
    command(copied)
    assert contents(copied) == uninterrupted


def test_a_finished_run_needs_no_model_and_changes_nothing(copied, stand_in, uninterrupted):
    command(copied)
    stand_in.fail_after = 0
    command(copied)
    assert contents(copied) == uninterrupted


def test_a_run_killed_while_joining_leaves_no_half_set(copied, stand_in, uninterrupted, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(records.DatasetWriter, "close", interrupted)
        command(copied)
    assert records.Records(copied).text_sets == ()
    locks_and_scratch.leave_behind(copied / ".text_incomplete-0123abcd", "new")  # of a kill that ran no handler
    command(copied)
    assert contents(copied) == uninterrupted


def test_a_join_killed_between_two_renames_loses_nothing(copied, stand_in, uninterrupted):
    command(copied)
    joining = copied / ".text_incomplete-0123abcd"
    locks_and_scratch.leave_behind(joining)
    (copied / "text/blip/holding/token_ids").rename(joining / "old")  # where the killed process had moved it
    (joining / "text_set").write_text("blip/holding/token_ids")
    (copied.parent / "records.text/blip/holding/token_ids/clips").rename(copied.parent / "lost")  # cannot be made anew
    with pytest.raises(PreparationError, match="no feature of any"):
        text_sets.join(copied, copied.parent / "records.text", ["blip/holding/token_ids"])
    assert contents(copied) == uninterrupted


def test_features_made_otherwise_are_not_mixed(copied, stand_in, capsys):
    command(copied)
    before = contents(copied)
    for option, key in (
        ("--model=other/model", "model"),
        ("--revision=v2", "revision"),
        ("--question=holding=What is it?", "question"),
        ("--max_tokens=5", "max_tokens"),
        ("--precision=float16", "precision"),
    ):
        with pytest.raises(SystemExit, match=rf"made with {key} .*; choose another --name"):
            command(copied, "--name=blip", option)
    shutil.rmtree(copied.parent / "records.text")
    with pytest.raises(SystemExit, match=r"token_ids: already exists and was made differently"):
        command(copied, "--question=holding=What is it?")
    assert contents(copied) == before


def test_a_set_of_another_origin_is_kept(tiny_records, stand_in, tmp_path):
    root = shutil.copytree(tiny_records, tmp_path / "records")
    with pytest.raises(SystemExit, match=r"stand_in/holding/token_ids: already exists and was made differently"):
        text_features.main([f"--records={root}", "--name=stand_in"])


def jpeg_folder(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    for number in range(NUM_CLIPS):
        (folder / f"clip{number:02d}.jpg").write_bytes(jpeg(24, 24 + number % 2, (20 * number,) * 3))
    return folder


def test_mosaics_of_a_folder(copied, stand_in, tmp_path):
    images = jpeg_folder(tmp_path / "images")
    (images / "README.txt").write_text("not a mosaic")
    out = tmp_path / "text"
    text_features.main([f"--images={images}", f"--out={out}"])
    text_sets.join(copied, out)
    opened = records.Records(copied)
    assert opened.text_sets == ("blip/holding/token_ids",)
    assert not opened.clips_without(range(len(opened)), "blip/holding/token_ids")


def test_broken_mosaics_are_set_aside_and_cost_no_other_clip(copied, stand_in, tmp_path, capsys):
    images = jpeg_folder(tmp_path / "images")
    whole = (images / "clip03.jpg").read_bytes()
    rng = np.random.default_rng(0)
    spoiled = {
        "clip00": b"",
        "clip01": whole[: len(whole) // 2],
        "clip02": whole[:2],
        "clip04": b"GIF89a" + bytes(100),
        "clip05": rng.bytes(5000),
        "clip06": whole[:20] + rng.bytes(len(whole) - 20),
    }
    for name, data in spoiled.items():
        (images / f"{name}.jpg").write_bytes(data)
    command(copied, f"--images={images}")
    listed = json.loads((copied.parent / "records.text/blip/set_aside.json").read_text())
    assert [item["name"] for item in listed] == sorted(spoiled)
    assert all(item["reason"] for item in listed)
    opened = records.Records(copied)
    assert opened.clips_without(range(len(opened)), "blip/holding/token_ids") == [
        *("clip06", "clip05", "clip04", "clip02", "clip01", "clip00")
    ]
    assert "set aside: 6" in capsys.readouterr().out
    (images / "clip02.jpg").write_bytes(whole)  # repaired: done now, and the rest is as it was
    stand_in.pictures = 0
    command(copied, f"--images={images}")
    assert stand_in.pictures <= 3
    assert "clip02" not in records.Records(copied).clips_without(range(len(opened)), "blip/holding/token_ids")


def test_no_mosaic_at_all(copied, stand_in, tmp_path):
    with pytest.raises(SystemExit, match=r"nowhere: no such file or folder"):
        command(copied, f"--images={tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"no \*.jpg files; give the dataset as distributed"):
        command(copied, f"--images={tmp_path / 'empty'}")
    (tmp_path / "empty" / "clip00.jpg").write_bytes(b"no JPEG")
    with pytest.raises(SystemExit, match="no clip has been processed; check that the mosaics can be read"):
        command(copied, f"--images={tmp_path / 'empty'}")
    shutil.rmtree(copied / "images")
    with pytest.raises(SystemExit, match="these records have no images; give the folder of the mosaics as --images"):
        command(copied)


def test_mosaics_of_other_clips(copied, stand_in, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "stranger.jpg").write_bytes(jpeg())
    with pytest.raises(SystemExit, match=r"no feature of any of the 11 clips .* check that the names agree"):
        command(copied, f"--images={tmp_path / 'images'}")
    assert records.Records(copied).text_sets == ()


def test_features_that_are_not_finite_are_set_aside(copied, stand_in):
    stand_in.spoiled = (1,)
    command(copied)
    opened = records.Records(copied)
    assert len(opened.clips_without(range(len(opened)), "blip/holding/decoder_states")) == 4
    assert not opened.clips_without(range(len(opened)), "blip/holding/token_ids")
    listed = json.loads((copied.parent / "records.text/blip/set_aside.json").read_text())
    assert "not finite in float32; try --precision" in listed[0]["reason"]


def test_too_little_memory_says_what_to_do(copied, stand_in):
    stand_in.fail_after, stand_in.failure = 3, RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    with pytest.raises(SystemExit, match=r"not enough memory for 3 mosaics .*smaller --batch_size"):
        command(copied)


def test_damaged_outputs_of_others_are_left_out_when_joined(copied, stand_in, tmp_path, capsys):
    out = tmp_path / "text"
    text_features.main([f"--images={jpeg_folder(tmp_path / 'images')}", f"--out={out}"])
    clips = out / "blip/holding/token_ids/clips"
    np.savez(clips / "clip03.npz", feature=np.zeros(5, np.float32), answer=np.array(""), num_tokens=np.array(0))
    os.truncate(clips / "clip04.npz", 50)
    text_sets.join(copied, out)
    opened = records.Records(copied)
    assert opened.clips_without(range(len(opened)), "blip/holding/token_ids") == ["clip04", "clip03"]
    output = capsys.readouterr().out
    assert "expected 3 finite numbers" in output
    assert "damaged" in output
    (out / "blip/holding/token_ids/about.json").write_text("{")
    with pytest.raises(PreparationError, match=r"about.json: damaged"):
        text_sets.join(copied, out)
    with pytest.raises(PreparationError, match="no text features in this folder"):
        text_sets.join(copied, tmp_path / "images")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--images=x"],
        ["--records=x", "--shard=3/3"],
        ["--records=x", "--shard=1"],
        ["--records=x", "--question=nose"],
        ["--records=x", "--question=a/b=What?"],
        ["--records=x", "--question=a=What?", "--question=a=Who?"],
        ["--records=x", "--answers=,"],
        ["--records=x", "--name=../x"],
        ["--records=x", "--batch_size=0"],
    ],
)
def test_arguments_that_mean_nothing(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        text_features.main(arguments)
    assert raised.value.code == 2
    assert "usage:" in capsys.readouterr().err
