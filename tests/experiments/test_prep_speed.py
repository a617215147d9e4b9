"""The table of what preparation costs, on a small clip."""

import re

import pytest

from experiments import prep_speed
from tests.helpers import ntu_files

pytest.importorskip("av", reason="PyAV is not installed (the extra `video`)")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    skeleton, video = folder / "S001C001P001R001A001.skeleton", folder / "S001C001P001R001A001_rgb.avi"
    skeleton.write_text(ntu_files.one_person())
    ntu_files.write_video(video, 20, size=(270, 480))
    return [f"--skeleton={skeleton}", f"--video={video}"]


def test_every_step_is_measured_and_extrapolated(clip, tmp_path, capsys):
    pytest.importorskip("transformers", reason="needs transformers (the extra `text`)")
    from tests.helpers import tiny_vqa

    prep_speed.main([*clip, f"--vqa_model={tiny_vqa.save_blip(tmp_path / 'blip')}", "--repeats=2"])
    lines = capsys.readouterr().out.strip().splitlines()
    assert "113,945 clips" in lines[0]
    assert [re.split("[ (`]", line)[1] for line in lines[2:]] == ["reading", "reading", "mosaic,", "checking", "one"]
    for line in lines[2:]:
        least, median = map(float, re.search(r"\| ([\d.]+) / ([\d.]+) \|", line).groups())
        assert 0 <= least <= median
        assert re.search(r"\| [\d.]+ (h|min) \|$", line)


@pytest.mark.parametrize("missing", ["skeleton", "video"])
def test_a_missing_file_ends_the_command_plainly(clip, missing):
    arguments = [argument if missing not in argument.split("=")[0] else f"--{missing}=nowhere" for argument in clip]
    with pytest.raises(SystemExit, match=r"error: .*--skeleton and --video must be files of the same clip"):
        prep_speed.main([*arguments, "--repeats=1"])
