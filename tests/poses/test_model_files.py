"""Model files are taken out of packages only if they are the expected ones, and found again."""

import io
import pathlib
import subprocess
import tarfile
import zipfile

import pytest

from mmcl_jax.poses import download, model_files
from mmcl_jax.poses.types import PosesError

CONTENTS = b"a small model"


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """The same files with other, small contents."""
    digest = model_files._digest(CONTENTS)
    files = {
        model: model_files.ModelFile(file.name, len(CONTENTS), digest, file.wheel, file.npm)
        for model, file in model_files.FILES.items()
    }
    monkeypatch.setattr(model_files, "FILES", files)


def wheel(path: pathlib.Path, contents: bytes = CONTENTS) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        for model in ("detector", "full"):
            archive.writestr(model_files.FILES[model].wheel, contents)
        archive.writestr("../outside.txt", b"must never be unpacked")
    return path


def package(path: pathlib.Path, contents: bytes = CONTENTS) -> pathlib.Path:
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("package/pose_landmark_lite.tflite")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for model in ("lite", "heavy"):
            entry = tarfile.TarInfo(model_files.FILES[model].npm)
            entry.size = len(contents)
            archive.addfile(entry, io.BytesIO(contents))
    return path


def test_files_are_taken_out_of_both_packages_and_found(tmp_path, capsys):
    folder = tmp_path / "models"
    download.main([f"--archive={wheel(tmp_path / 'a.whl')}", f"--folder={folder}"])
    assert "detector, full: ready in" in capsys.readouterr().out
    download.main(["lite", "heavy", f"--archive={package(tmp_path / 'a.tgz')}", f"--folder={folder}"])
    assert {path.name for path in folder.iterdir()} == {file.name for file in model_files.FILES.values()}
    assert {path.name for path in tmp_path.iterdir()} == {"models", "a.whl", "a.tgz"}
    for model in ("detector", *model_files.MODELS):
        assert model_files.find(model, folder).read_bytes() == CONTENTS
    own = tmp_path / "own.tflite"
    own.write_bytes(b"")
    assert model_files.find(own, folder) == own


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: wheel(path, b"another model"), r"its pose_detection.tflite is not the expected file \(SHA-256"),
        (lambda path: wheel(path, CONTENTS + b"longer"), "not the expected file"),
        (lambda path: path.write_bytes(b"no archive"), "damaged or no archive"),
        (lambda path: path.write_bytes(wheel(path).read_bytes()[:-50]), "damaged or no archive"),
        (package, "no model detector, full in it; detector and full are in pip's mediapipe==0.10.21"),
    ],
)
def test_other_archives_are_refused(tmp_path, make, message):
    archive = tmp_path / "archive"
    make(archive)
    with pytest.raises(SystemExit, match=message):
        download.main([f"--archive={archive}", f"--folder={tmp_path / 'models'}"])
    assert not list((tmp_path / "models").glob("*"))


def test_a_missing_or_damaged_file_names_the_command(tmp_path):
    with pytest.raises(PosesError, match=r"make setup-video` or `python -m mmcl_jax.poses.download`, .*mediapipe"):
        model_files.find("full", tmp_path)
    with pytest.raises(PosesError, match=r"mmcl_jax.poses.download heavy`, .*@mediapipe/pose.* \(npm\)"):
        model_files.find("heavy", tmp_path)
    (tmp_path / "pose_landmark_full.tflite").write_bytes(CONTENTS[::-1])
    with pytest.raises(PosesError, match="damaged, not the file that was stored; remove it and run"):
        model_files.find("full", tmp_path)
    with pytest.raises(PosesError, match="--pose_model=huge: not one of lite, full, heavy, and no such file"):
        model_files.find("huge", tmp_path)


def test_the_folder_can_be_named(monkeypatch, tmp_path):
    monkeypatch.delenv(model_files.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert model_files.cache_folder() == tmp_path / "mmcl_jax" / "pose_models"
    monkeypatch.setenv(model_files.FOLDER_VARIABLE, str(tmp_path / "here"))
    assert model_files.cache_folder() == tmp_path / "here"


def test_without_npm_the_registry_must_be_named(monkeypatch, tmp_path):
    monkeypatch.setattr(download.shutil, "which", lambda _: None)
    for name in download._REGISTRY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PosesError, match=r"install npm, set npm_config_registry .* or download it and give --archive"):
        download.fetch(("lite",), tmp_path)
    stored = tmp_path / "@mediapipe/pose/-/pose-0.5.1675469404.tgz"  # a registry in a folder
    stored.parent.mkdir(parents=True)
    package(stored)
    monkeypatch.setenv("npm_config_registry", tmp_path.as_uri())
    assert [path.name for path in download.fetch(("lite",), tmp_path / "models")] == ["pose_landmark_lite.tflite"]


def test_a_failed_download_repeats_the_tools_words(monkeypatch, tmp_path):
    ended = subprocess.CompletedProcess([], 1, "", "looking\nERROR: No matching distribution\n")
    monkeypatch.setattr(download.subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(PosesError, match=r"pip could not download mediapipe==0.10.21: ERROR: No matching distribution"):
        download.fetch(("full",), tmp_path)


def test_an_unknown_model_is_refused(capsys):
    with pytest.raises(SystemExit):
        download.main(["huge"])
    assert "'huge' is not one of lite, full, heavy" in capsys.readouterr().err
