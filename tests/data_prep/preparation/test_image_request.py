"""The arguments about images: which go together, and what a request tells the datasets."""

import argparse
import pathlib

import pytest

from data_prep.images import yolo
from data_prep.preparation import image_request
from mmcl_jax.runtime.errors import PreparationError


def parse(*arguments: str) -> image_request.Request:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out")
    image_request.add_arguments(parser)
    return image_request.parse(parser, parser.parse_args(arguments))


def test_requests():
    assert parse("--out=x") == image_request.NO_IMAGES
    assert parse("--out=x", "--videos=v", "--boxes=skeleton").detector is None
    request = parse("--videos=v", "--images=i", "--shard=1/3", "--boxes=yolo", "--yolo_weights=w.pt")
    assert (request.shard, request.detector) == ((1, 3), yolo.Settings(pathlib.Path("w.pt")))
    named = ("--yolo_confidence=0.4", "--yolo_person=human", "--yolo_batch=3")
    request = parse("--out=x", "--videos=v", "--boxes=yolo", "--yolo_weights=w.pt", *named)
    assert request.detector == yolo.Settings(pathlib.Path("w.pt"), 0.4, "human", 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos=v", "--out=x", "--yolo_weights=w.pt"], "need --boxes yolo"),
        (["--videos=v", "--out=x", "--yolo_batch=2"], "need --boxes yolo"),
        (["--videos=v", "--out=x", "--boxes=yolo"], "it needs --videos and --yolo_weights"),
        (["--images=v", "--out=x", "--boxes=yolo", "--yolo_weights=w.pt"], "it needs --videos and --yolo_weights"),
        (["--out=x", "--boxes=hog"], "invalid choice"),
        (["--out=x", "--yolo_confidence=1.5"], "is not a number from 0"),
        (["--out=x", "--yolo_confidence=nan"], "is not a number from 0"),
        (["--out=x", "--yolo_batch=0"], "is not a positive whole number"),
        (["--shard=0/2", "--videos=v"], "needs --videos and --images"),
        ([], "--out is needed"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse(*arguments)
    assert message in capsys.readouterr().err


def test_text_is_looked_for_before_anything_is_done(tmp_path):
    with pytest.raises(PreparationError, match="nowhere: no such folder; --text must name"):
        image_request.NO_IMAGES.check(tmp_path / "out", tmp_path / "nowhere", overwrite=False)
    assert image_request.NO_IMAGES.check(tmp_path / "out", tmp_path, overwrite=False) == tmp_path / "out"


def test_shards_unpack_archives_apart(tmp_path):
    folders = {image_request.Request(tmp_path, tmp_path / "images", shard).scratch(None) for shard in ((0, 2), (1, 2))}
    assert len(folders) == 2
    assert image_request.NO_IMAGES.scratch(tmp_path / "out").name == "out.unpacked"
