"""The paper's tables: their rows as configs, which are measured and which are not, and gains by class."""

import shutil

import numpy as np
import pytest

from experiments import tables
from experiments.scores import read_scores
from tests.experiments.test_streams import tiny_overrides
from tests.helpers import runs, score_files


def _lines(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def _commands(arguments, capsys) -> list[str]:
    tables.main([*arguments, "--list"])
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("number", "rows"), [(3, 10), (4, 6), (5, 5), (6, 5), (8, 3), (9, 4)])
def test_every_row_is_a_config_that_the_program_reads(number, rows, tmp_path, capsys):
    arguments = [str(number), f"--workdir={tmp_path}"]
    tables.main(arguments)
    header, _, *lines = _lines(capsys.readouterr().out)
    assert len(lines) == rows and header[-3:] == ["top-1 %", "gain", "published"]
    assert all(line[-3:-1] == ["not run", "-"] for line in lines)
    sweep = tables.Sweep(tables.DEFAULT_CONFIG, tmp_path, (0, 1), (), tables.TEXT_SETS)
    for row in tables.TABLES[number].rows:
        for seed in sweep.seeds:
            for run, stream in zip(sweep.runs(row, seed), row.streams, strict=True):
                config = run.read_config()
                assert config.seed == seed and config.model.backbone == row.backbone
                assert config.data.stream == stream.removeprefix("hd_")
                assert (config.model.graph == "hierarchical") == stream.startswith("hd_")
                assert (config.loss.contrastive_weight, config.loss.refinement_weight) == (row.fam, row.frm)
    for folder in tmp_path.iterdir():
        raise AssertionError(f"{folder} was made by looking")


def test_runs_that_tables_share_are_listed_once(tmp_path, capsys):
    single = {number: _commands([str(number), "--seeds=0"], capsys) for number in (5, 6, 9)}
    together = _commands(["5", "6", "9", "--seeds=0"], capsys)
    assert len(together) == len(set(together)) == len({line for lines in single.values() for line in lines})
    assert [len(lines) for lines in single.values()] == [5, 5, 4]
    assert len(together) == 5 + 4 + 2  # the baseline thrice, BLIP's `holding` twice
    assert len(_commands(["6", "--rows=1,5"], capsys)) == 2 * 3
    chosen = _commands(["5", "--rows=4", "--seeds=7", "--text=MiniGPT-4=my_model/holding"], capsys)
    assert len(chosen) == 1 and "--config.data.text=my_model/holding" in chosen[0] and "--config.seed=7" in chosen[0]


@pytest.mark.long
def test_two_rows_are_run_and_shown(tiny_records, finished_run, compiled, tmp_path, monkeypatch, capfd):
    """The baseline is trained; MMCL's row, which the finished run is, is found finished."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(compiled))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    monkeypatch.setenv("XLA_FLAGS", runs.UNOPTIMISED)
    workdirs = [tmp_path / f"ctrgcn-joint-{modules}" / "seed0" for modules in ("fam0-frm0", "fam0.1-frm0.2")]
    shutil.copytree(finished_run, workdirs[1])
    arguments = ["6", "--config=configs/demo.py", f"--workdir={tmp_path}", "--seeds=0", *tiny_overrides(tiny_records)]
    tables.main([*arguments, "--rows=1,5", "--run"])
    found = [read_scores(workdir) for workdir in workdirs]
    reached = [100 * (file.scores.argmax(axis=1) == file.labels).mean() for file in found]
    assert "already finished" in capfd.readouterr().out
    tables.main(arguments)
    _, _, first, *others, last = _lines(capfd.readouterr().out)
    assert first[-3:] == [f"{reached[0]:.2f} (n = 1)", "-", "85.01"]
    assert [line[-3:-1] for line in others] == [["not run", "-"]] * 3
    assert last[-3:] == [f"{reached[1]:.2f} (n = 1)", f"{reached[1] - reached[0]:+.2f} (n = 1)", "85.79"]
    tables.main([*arguments, "--seeds=0,1", "--rows=1"])
    assert _lines(capfd.readouterr().out)[-1][-3] == f"{reached[0]:.2f} (n = 1) (1 of 2 runs finished)"


def test_a_run_that_cannot_be_read_leaves_the_other_rows(tiny_records, finished_run, tmp_path, capsys):
    for modules in ("fam0-frm0", "fam0.1-frm0.2"):  # MMCL's run, in the folder of the baseline too
        shutil.copytree(finished_run, tmp_path / f"ctrgcn-joint-{modules}" / "seed0")
    arguments = ["6", "--config=configs/demo.py", f"--workdir={tmp_path}", "--seeds=0", *tiny_overrides(tiny_records)]
    with pytest.raises(SystemExit, match="made by another config"):
        tables.main(arguments)
    _, _, first, *_, last = _lines(capsys.readouterr().out)
    assert first[-3:-1] == ["unreadable, see below", "-"]
    assert last[-3].endswith("(n = 1)") and last[-2] == "-"


@pytest.mark.slow
def test_a_row_that_fails_does_not_keep_the_next_from_running(tiny_records, tmp_path, capfd):
    arguments = ["9", "--config=configs/demo.py", f"--workdir={tmp_path}", "--seeds=0", *tiny_overrides(tiny_records)]
    with pytest.raises(SystemExit, match=r"blip_head/seed0: the run ended .*\n.*blip_foot/seed0: the run ended"):
        tables.main([*arguments, "--rows=2,3", "--run"])
    out = capfd.readouterr()
    assert "'blip/head' names 0 of the text sets" in out.err and "'blip/foot' names 0" in out.err
    assert [line[-3] for line in _lines(out.out)[2:]] == ["not run"] * 2


def test_mean_and_deviation_over_seeds():
    assert tables._spread([]) == "-"
    assert tables._spread([81.0]) == "81.00 (n = 1)"
    assert tables._spread([80.0, 82.0, 84.0]) == "82.00 ± 2.00 (n = 3)"
    assert tables._spread([-0.5, 0.5], "+") == "+0.00 ± 0.71 (n = 2)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["6", "--seeds=0,x"], "--seeds=0,x: expected different whole numbers"),
        (["6", "--seeds=1,1"], "expected different whole numbers"),
        (["6", "--rows=6"], "--rows=6: the table has rows 1 to 5"),
        (["6", "--rows=0"], "rows 1 to 5"),
        (["5", "--text=GPT=x"], "with a NAME of BLIP, MiniGPT-4"),
        (["5", "--text=BLIP"], "expected NAME=SET"),
        (["6", "--config=configs/none.py"], "error: configs/none.py: no such file"),
        (["6", "--config.x=1"], "no such config key"),
        (["6", "--runs"], "'--runs' is not an option"),
        (["2"], "2"),
        (["7", "6"], "2"),
    ],
)
@pytest.mark.parametrize("action", ["--run", "--list"])
def test_what_does_not_fit_is_refused(arguments, message, action, tmp_path, capsys):
    with pytest.raises(SystemExit, match=message):
        tables.main([*arguments, f"--workdir={tmp_path}", action])
    assert not capsys.readouterr().out.startswith("python")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1", "a.npz"], "takes two score files"),
        (["1", "a.npz", "b.npz", "--run"], "table 1 is not a sweep; leave out --run"),
        (["1", "a.npz", "b.npz", "--most=0"], "'0' is not a positive whole number"),
        (["7", "--rows=1"], "table 7 is not a sweep; leave out --rows"),
        (["7", "--config.seed=1"], "leave out --config.seed=1"),
    ],
)
def test_tables_that_are_no_sweeps_take_no_option_of_one(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        tables.main(arguments)
    assert message in capsys.readouterr().err


def test_gains_of_files_that_are_not_there():
    with pytest.raises(SystemExit, match=r"a\.npz: no such file"):
        tables.main(["1", "a.npz", "b.npz"])


def test_gains_by_class(tmp_path, capsys):
    """Five clips of three classes; by hand: walk 1 of 2 -> 2 of 2, sit 2 of 2 -> 1 of 2, throw 0 of 1 both times."""
    labels = np.array([0, 0, 1, 1, 2])
    names = np.array(list("abcde"))

    def write(name, guesses):
        scores = np.eye(3)[guesses]
        return str(score_files.write(tmp_path / name, names=names, labels=labels, scores=scores))

    before, after = write("before.npz", [0, 1, 1, 1, 0]), write("after.npz", [0, 0, 1, 2, 1])
    tables.main(["1", before, after])
    text = capsys.readouterr().out
    _, _, gained, lost = _lines(text)
    assert gained == ["1", "walk", "2", "50.00", "100.00", "+50.00"]
    assert lost == ["2", "sit", "2", "100.00", "50.00", "-50.00"]
    assert "1 gained, 1 lost, 1 unchanged; top-1 60.00 -> 60.00 %, mean class 50.00 -> 50.00 %" in text
    assert "One clip of a class counts 50.00 to 100.00 points" in text


@pytest.mark.long
def test_table_7_is_the_table_of_models(capsys):
    tables.main(["7"])
    rows = {line[0]: line for line in _lines(capsys.readouterr().out)}
    assert rows["ctrgcn"][2:] == ["1,462,092", "1.79 G", "1.44 M, 1.79 G"]
