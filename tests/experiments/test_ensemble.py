"""The ensemble against a hand calculation; weights that are published, given or fitted, and never on test scores."""

import json
import math
import pathlib

import numpy as np
import pytest

from experiments import ensemble
from experiments.scores import Scores, ScoresError, read_scores, read_together
from tests.helpers import score_files

# Second stream of the clips of score_files. By hand, the labels being 0, 1, 2:
#           first      second        first + 2 second
#   walk_1  (2, 1, 0)  (0, 0.25, 0)  (2, 1.5, 0)  right, as only the first; the second is wrong
#   sit_1   (1, 2, 0)  (0, 1, 0)     (1, 4, 0)    right, as both
#   throw_1 (3, 0, 2)  (0, 0, 1)     (3, 0, 4)    right, as only the second
SECOND = np.array([[0.0, 0.25, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
FUSED = [[2.0, 1.5, 0.0], [1.0, 4.0, 0.0], [3.0, 0.0, 4.0]]


@pytest.fixture
def two(tmp_path):
    return [
        str(score_files.write(tmp_path / "joint.npz")),
        str(score_files.write(tmp_path / "bone.npz", scores=SECOND)),
    ]


def _row(text: str, first: str) -> list[str]:
    return next([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if first in line)


def test_a_hand_calculation(two, tmp_path, capsys):
    ensemble.main([*two, "--weights=1,2", f"--out={tmp_path / 'fused.npz'}"])
    text = capsys.readouterr().out
    assert _row(text, "| joint |")[2:] == ["1", "0.333", "66.67", "100.00", "66.67"]
    assert _row(text, "| bone |")[2:] == ["2", "0.667", "66.67", "100.00", "66.67"]
    assert _row(text, "| ensemble |")[2:] == ["3", "1.000", "100.00", "100.00", "100.00"]
    assert "3 clips; weights given" in text
    fused = read_scores(tmp_path / "fused.npz")
    np.testing.assert_array_equal(fused.scores, FUSED)
    assert fused.names.tolist() == ["walk_1", "sit_1", "throw_1"] and fused.labels.tolist() == [0, 1, 2]


def test_clips_are_joined_by_name(two, tmp_path):
    order = [2, 0, 1]
    shuffled = {
        key: value[order] for key, value in score_files.contents(scores=SECOND).items() if value.shape[:1] == (3,)
    }
    shuffled["class_names"] = score_files.contents()["class_names"]
    other = str(score_files.write(tmp_path / "shuffled.npz", **shuffled))
    expected = [file.scores for file in read_together(two)]
    np.testing.assert_array_equal([file.scores for file in read_together([two[0], other])], expected)


def test_normalised_scores_have_length_one(two):
    first, second = (file.scores for file in read_together(two))
    fused = ensemble.fuse([first, second], (1, 2), normalise=True)
    root = math.sqrt(5)
    np.testing.assert_allclose(fused[0], [2 / root, 1 / root + 2, 0])
    np.testing.assert_allclose(fused[2], [3 / math.sqrt(13), 0, 2 / math.sqrt(13) + 2])
    np.testing.assert_array_equal(ensemble.fuse([first * 0], (1,), normalise=True), first * 0)


def _streams(tmp_path, streams):
    """A workdir per stream, with the files that the ensemble reads."""
    for stream in streams:
        folder = tmp_path / stream
        folder.mkdir()
        score_files.write(folder / "scores_test.npz")
        graph = "hierarchical" if stream.startswith("hd_") else "natural"
        config = {"data": {"stream": stream.removeprefix("hd_")}, "model": {"graph": graph}}
        (folder / "config.json").write_text(json.dumps(config))
    return [str(tmp_path / stream) for stream in streams]


@pytest.mark.parametrize(
    ("preset", "weights"),
    [("nw_ucla", [0.6, 0.6, 0.4, 0.4]), ("ntu120_xsub", [2.3617, 4.3540, 3.6038, 1.0158, 3.0575, 5.0])],
)
def test_published_weights_are_presets(tmp_path, preset, weights):
    streams = ["joint", "bone", "joint_motion", "bone_motion", "hd_joint", "hd_bone"][: len(weights)]
    paths = _streams(tmp_path, streams)
    found = ensemble.read_weights(preset, read_together(paths))
    assert found.values.tolist() == weights and preset in found.source
    with pytest.raises(
        ScoresError, match=r"scores of the stream bone, but .* has joint here; give the files in .* joint"
    ):
        ensemble.read_weights(preset, read_together([paths[1], paths[0], *paths[2:]]))
    with pytest.raises(ScoresError, match=f"{len(weights)} streams .*, but 3 files"):
        ensemble.read_weights(preset, read_together(paths[:3]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("1", "1 weights, but 2 files"),
        ("1,2,3", "3 weights, but 2 files"),
        ("1,nan", "expected finite, nonnegative numbers"),
        ("1,-1", "nonnegative"),
        ("0,0", "at least one of them positive"),
        ("best", "expected equal, ntu120_xsub, nw_ucla, or comma-separated numbers"),
        ("1,,2", "comma-separated numbers"),
        ("1e308,1e308", "too large for these scores"),
    ],
)
def test_weights_that_do_not_fit_are_refused(two, weights, message):
    with pytest.raises(SystemExit, match=message):
        ensemble.main([*two, f"--weights={weights}"])


@pytest.fixture
def noisy(tmp_path):
    """Test and validation files of three streams of 1,000 clips: a good one, a weaker one, and one that is noise."""
    rng = np.random.default_rng(0)
    files = {}
    for part in ("test", "validation"):
        labels = rng.integers(0, 4, 1000)
        for stream, signal in (("good", 2.0), ("weak", 1.2), ("noise", 0.0)):
            values = rng.normal(size=(1000, 4))
            values[np.arange(1000), labels] += signal
            names = np.array([f"{part}_{clip}" for clip in range(1000)])
            changes = {"names": names, "scores": values, "labels": labels, "class_names": np.array(list("abcd"))}
            files[part, stream] = str(score_files.write(tmp_path / f"{stream}_{part}.npz", **changes))
    return {part: [files[part, stream] for stream in ("good", "weak", "noise")] for part in ("test", "validation")}


@pytest.mark.parametrize("method", ["coordinate", "gradient"])
@pytest.mark.parametrize("normalise", [False, True])
def test_weights_are_fitted_on_validation_scores(noisy, method, normalise):
    files = read_together(noisy["validation"])
    weights = ensemble.fit_weights(files, method, normalise)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    assert weights[0] > weights[1] > weights[2] and weights[2] < 0.1
    np.testing.assert_array_equal(weights, ensemble.fit_weights(files, method, normalise))
    streams = [file.scores for file in files]

    def right(weights):
        return (ensemble.fuse(streams, weights, normalise).argmax(axis=1) == files[0].labels).mean()

    assert right(weights) > right(np.ones(3))


def test_gradient_search_finds_the_proportions_of_the_signal():
    """Two classes, signals in the proportion 2 to 1 under equal noise: so are the weights."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 20_000)
    side = 2 * labels - 1
    files = []
    for signal in (1.0, 0.5):
        margin = signal * side + rng.normal(size=len(labels))
        scores = np.stack([0 * margin, margin], axis=1)
        files.append(Scores(pathlib.Path(), np.array([]), scores, labels))
    np.testing.assert_allclose(ensemble.fit_weights(files, "gradient"), [2 / 3, 1 / 3], atol=0.02)


def test_fitted_weights_are_judged_on_other_clips(noisy, capsys):
    ensemble.main([*noisy["test"], "--fit", *noisy["validation"]])
    text = capsys.readouterr().out
    assert "fitted by coordinate search on 1000 other clips" in text
    assert float(_row(text, "| ensemble |")[4]) > float(_row(text, "good_test")[4])


def test_test_scores_are_not_fitted_on_unless_told(noisy, capsys):
    with pytest.raises(SystemExit, match=r"1000 of its 1000 clips are test clips of .*pass --fit_on_test"):
        ensemble.main([*noisy["test"], "--fit", *noisy["test"]])
    assert not capsys.readouterr().out
    ensemble.main([*noisy["test"], "--fit", *noisy["test"], "--fit_on_test"])
    text = capsys.readouterr().out
    assert "FITTED ON 1000 TEST CLIPS" in text and "| ensemble (fitted on test clips) |" in text


def test_a_single_test_clip_among_the_others_is_enough_to_refuse(noisy, tmp_path):
    paths = []
    for path in noisy["validation"]:
        file = read_scores(path)
        names = file.names.astype("U20")
        names[17] = "test_3"
        changes = {"scores": file.scores, "labels": file.labels, "class_names": np.array(file.class_names)}
        paths.append(str(score_files.write(tmp_path / f"mixed_{file.path.name}", names=names, **changes)))
    with pytest.raises(SystemExit, match=r"1 of its 1000 clips are test clips .* among them test_3"):
        ensemble.main([*noisy["test"], "--fit", *paths])


def test_files_to_fit_on_must_match_the_streams(noisy, two):
    with pytest.raises(SystemExit, match="2 files, but 3 streams"):
        ensemble.main([*noisy["test"], "--fit", *noisy["validation"][:2]])
    with pytest.raises(SystemExit, match="has other classes than"):
        ensemble.main([*two, "--fit", *noisy["validation"][:2]])


def test_no_file_that_is_fused_is_written_over(two):
    with pytest.raises(SystemExit, match=r"joint\.npz: is one of the files to fuse"):
        ensemble.main([*two, f"--out={two[0]}"])
    assert read_scores(two[0]).scores.tolist() == score_files.contents()["scores"].tolist()


def test_fused_scores_are_not_written_anywhere(two, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    with pytest.raises(SystemExit, match=r"scores_test\.npz: the folder is the workdir of a run"):
        ensemble.main([*two, f"--out={tmp_path / 'run' / 'scores_test.npz'}"])
    with pytest.raises(SystemExit, match=r"fused\.txt: expected a name that ends in \.npz"):
        ensemble.main([*two, "--out=fused.txt"])


@pytest.mark.parametrize(
    "more",
    [
        ["--weights=equal", "--fit", "x"],
        ["--fit_on_test"],
        ["--fit", "x", "y", "--fit_on_test", "--out=fused.npz"],
    ],
)
def test_options_that_contradict_each_other_are_refused(two, more):
    with pytest.raises(SystemExit, match="2"):
        ensemble.main([*two, *more])
    with pytest.raises(SystemExit, match="2"):
        ensemble.main(two[:1])
