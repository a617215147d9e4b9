"""Fine-tuning against random weights: the pairs of runs, and the table of their results."""

import pathlib

import pytest

from experiments import fine_tuning
from experiments.launch import Run


def test_a_pair_differs_in_its_start_only_and_sees_the_same_clips_as_often():
    folder = pathlib.Path("W")
    overrides = (("num_epochs", "2"), ("model.base_channels", "8"))
    pair = fine_tuning.target_runs("configs/nw_ucla.py", folder, folder / "source", 0.05, 3, overrides)
    tuned, random = (pair[start].read_config() for start in ("fine-tuned", "random"))
    assert (tuned.init_from, random.init_from) == ("W/source", "")
    with tuned.unlocked():
        tuned.init_from = ""
    assert tuned == random
    assert (random.data.train_fraction, random.data.train_fraction_seed, random.data.repeats) == (0.05, 3, 20)
    assert (random.seed, random.num_epochs, random.model.base_channels) == (3, 2, 8)
    assert len({run.workdir for run in pair.values()}) == 2
    frozen = fine_tuning.target_runs(
        "configs/nw_ucla.py", folder, folder / "source", 0.05, 3, overrides, (("freeze", "backbone"),)
    )
    assert frozen["random"] == pair["random"]
    assert frozen["fine-tuned"].read_config().freeze == "backbone"
    assert frozen["fine-tuned"].workdir.name == "fine_tuned_freeze_backbone"


def test_the_table_has_mean_deviation_and_the_difference_of_pairs():
    text = fine_tuning.table(
        {0.05: {"random": [50.0, 60.0], "fine-tuned": [61.0, 63.0]}, 1.0: {"random": [9], "fine-tuned": [8]}}
    )
    assert text.splitlines()[2:] == [
        "| 5 % | 55.0 ± 7.1 | 62.0 ± 1.4 | 7.0 ± 5.7 | +11.0, +3.0 |",
        "| 100 % | 9.0 | 8.0 | -1.0 | -1.0 |",
    ]


def test_the_means_by_epoch(tmp_path):
    starts = {}
    for start, values in (("fine-tuned", (0.25, 0.5)), ("random", (0.125, 0.75))):
        starts[start] = Run("configs/nw_ucla.py", tmp_path / start)
        starts[start].workdir.mkdir()
        lines = ["epoch,step,test_top1", f"1,10,{values[0]}", "2,20,", f"3,30,{values[1]}"]
        (starts[start].workdir / "metrics.csv").write_text("\n".join(lines) + "\n")
    assert fine_tuning.by_epoch({0.2: [starts, starts]}).splitlines() == [
        "| training clips | start | epoch 1 | epoch 3 |",
        "| --- | --- | --- | --- |",
        "| 20 % | fine-tuned | 25.0 | 50.0 |",
        "| 20 % | random | 12.5 | 75.0 |",
    ]


def test_an_unknown_option_is_refused():
    known = ["--source=configs/demo.py", "--target=configs/demo.py", "--workdir=W"]
    with pytest.raises(SystemExit, match=r"'--sources\.seed=1' is not an option"):
        fine_tuning.main([*known, "--sources.seed=1"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--seeds=1,1", "--seeds=1,1: expected different whole numbers"),
        ("--fractions=0.1,0", "--fractions=0.1,0: expected numbers above 0 and up to 1"),
        ("--fractions=half", "--fractions=half: expected numbers above 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path, option, message):
    known = ["--source=configs/demo.py", "--target=configs/demo.py", f"--workdir={tmp_path}"]
    with pytest.raises(SystemExit, match=message):
        fine_tuning.main([*known, option])
