"""The log in a workdir: which run it belongs to, and its rows when a run resumes."""

import csv
import json

import pytest
from absl import logging

from mmcl_jax.run_log import RunLog, WorkdirError, check_evaluation
from tests.helpers.runs import tiny_config


def _rows(workdir):
    with (workdir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _logged(workdir, config, epochs):
    log = RunLog(workdir, config, "clips")
    log.resume(0)
    for epoch, top1 in enumerate(epochs, start=1):
        log.epoch(epoch, 10 * epoch, {"train_loss": 1 / epoch, "test_top1": top1})
    log.close()


def test_rows_after_the_resumed_step_are_dropped(tmp_path):
    config = tiny_config("records")
    _logged(tmp_path, config, [0.25, 0.75, 0.5])
    log = RunLog(tmp_path, config, "clips")
    log.resume(10)
    assert [row["step"] for row in _rows(tmp_path)] == ["10"]
    log.epoch(2, 20, {"train_loss": 0.5, "test_top1": 0.375})
    log.close()
    assert [(row["epoch"], row["step"], row["test_top1"]) for row in _rows(tmp_path)] == [
        ("1", "10", "0.25"),
        ("2", "20", "0.375"),
    ]
    # The best of the rows that remain: the dropped epochs were not part of this run.
    assert _rows(tmp_path)[-1]["best_test_top1_so_far_never_used"] == "0.375"


def test_every_start_is_noted_with_its_step(tmp_path):
    config = tiny_config("records")
    _logged(tmp_path, config, [0.25])
    log = RunLog(tmp_path, config, "clips")
    log.resume(10)
    log.close()
    starts = json.loads((tmp_path / "version.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 10]
    assert all(start["commit"] and start["jax"] for start in starts)


def test_a_text_file_keeps_what_is_said(tmp_path):
    log = RunLog(tmp_path, tiny_config("records"), "clips")
    with pytest.raises(RuntimeError), log:
        log.resume(0)
        log.steps(7, {"loss": 3.0, "correct": 1.0, "steps": 2}, 0.1)
        log.epoch(1, 10, {"train_loss": 1.5, "train_classification": 1.5, "train_refinement": 0.0, "test_top1": 0.25})
        logging.warning("a warning of %s", "a file")
        raise RuntimeError("no more clips")
    logging.warning("after the run")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert "start at step 0: mmcl_jax" in lines[0] and ", jax " in lines[0]
    said = [line.partition(" INFO ")[2] or line.partition(" WARNING ")[2] for line in lines[1:]]
    assert said == [
        "step 7: loss 1.500, top-1 50.0 %, lr 0.1",
        "epoch 1 step 10: train_loss 1.5, test_top1 25.00 %",
        "a warning of a file",
        "ended by RuntimeError: no more clips",
    ]
    log = RunLog(tmp_path, tiny_config("records"), "clips")
    log.resume(10)
    log.close()
    assert "start at step 10" in (tmp_path / "log.txt").read_text().splitlines()[-1]


def test_a_text_file_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "log.txt").mkdir()
    with RunLog(tmp_path, tiny_config("records"), "clips") as log:
        log.resume(0)
        logging.warning("to nobody")
        log.epoch(1, 10, {"train_loss": 1.0})
    assert [row["step"] for row in _rows(tmp_path)] == ["10"]


def test_the_best_is_labelled_as_never_used(tmp_path):
    _logged(tmp_path, tiny_config("records"), [0.25, 0.75, 0.5])
    assert [row["best_test_top1_so_far_never_used"] for row in _rows(tmp_path)] == ["0.25", "0.75", "0.75"]


def test_epochs_without_evaluation_leave_their_cells_empty(tmp_path):
    log = RunLog(tmp_path, tiny_config("records"), "clips")
    log.resume(0)
    log.epoch(1, 10, {"train_loss": 1.0})
    log.epoch(2, 20, {"train_loss": 0.5, "test_top1": 0.5})
    log.close()
    assert [row["test_top1"] for row in _rows(tmp_path)] == ["", "0.5"]


def test_another_config_is_refused_with_a_list_of_what_differs(tmp_path):
    RunLog(tmp_path, tiny_config("records"), "clips")
    before = (tmp_path / "config.json").read_text()
    other = tiny_config("records", learning_rate=0.5, data__stream="bone", eval_batch_size=4)
    with pytest.raises(WorkdirError) as caught:
        RunLog(tmp_path, other, "clips")
    message = str(caught.value)
    assert "data.stream: 'joint' in the workdir, 'bone' now" in message
    assert "learning_rate: 0.1 in the workdir, 0.5 now" in message
    assert "eval_batch_size" not in message
    assert "--workdir" in message
    assert message.endswith("; or remove this workdir, which holds no checkpoint")
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    with pytest.raises(WorkdirError, match=r"\. Use another --workdir, or that config$"):
        RunLog(tmp_path, other, "clips")
    assert (tmp_path / "config.json").read_text() == before


def test_imported_weights_stay_as_they_are(tmp_path):
    (tmp_path / "imported.json").write_text("{}")
    with pytest.raises(WorkdirError, match=rf"--config\.init_from={tmp_path} --workdir=NEW"):
        RunLog(tmp_path, tiny_config("records"), "clips")
    assert not (tmp_path / "config.json").exists()


def test_a_run_may_be_prolonged_and_knows_it(tmp_path):
    assert RunLog(tmp_path, tiny_config("records", num_epochs=2), "clips").previous_epochs is None
    assert RunLog(tmp_path, tiny_config("records", num_epochs=3), "clips").previous_epochs == 2
    assert json.loads((tmp_path / "config.json").read_text())["num_epochs"] == 3


def test_keys_that_do_not_change_the_result_may_differ(tmp_path):
    RunLog(tmp_path, tiny_config("records"), "clips")
    RunLog(
        tmp_path,
        tiny_config(
            "moved",
            data__threads=1,
            data__prefetch=1,
            eval_batch_size=4,
            checkpoint_every_steps=5,
            log_every_steps=1,
        ),
        "clips",
    )
    assert json.loads((tmp_path / "config.json").read_text())["data"]["records"] == "moved"


def _lacking(workdir, *keys):
    """Takes keys out of a workdir's config, as an older version would have written it."""
    stored = json.loads((workdir / "config.json").read_text())
    for key in keys:
        part, _, name = key.rpartition(".")
        del (stored[part] if part else stored)[name]
    (workdir / "config.json").write_text(json.dumps(stored))


def test_an_older_workdir_uses_the_defaults_of_newer_keys(tmp_path, caplog):
    config = tiny_config("records", momentum=0.9)
    RunLog(tmp_path, config, "clips")
    _lacking(tmp_path, "momentum", "data.sampling", "data.threads")
    with caplog.at_level("INFO", logger="absl"):
        check_evaluation(tmp_path, config)
        RunLog(tmp_path, config, "clips")
    seen = [record.getMessage() for record in caplog.records]
    assert [message.partition("used: ")[2] for message in seen] == [
        "data.sampling='crop_resize'",
        "data.sampling='crop_resize', momentum=0.9",
    ]
    assert json.loads((tmp_path / "config.json").read_text())["momentum"] == 0.9


def test_an_older_workdir_is_refused_where_a_newer_key_is_not_at_its_default(tmp_path):
    RunLog(tmp_path, tiny_config("records"), "clips")
    _lacking(tmp_path, "momentum", "data.sampling")
    other = tiny_config("records", momentum=0.5, data__sampling="view_normalised")
    with pytest.raises(
        WorkdirError, match=r"momentum: 0\.9 in the workdir \(the default: .* is older than this key\), 0\.5 now"
    ):
        RunLog(tmp_path, other, "clips")
    with pytest.raises(
        WorkdirError, match=r"data\.sampling: 'crop_resize' in the workdir \(the default: .* is older than this key"
    ):
        check_evaluation(tmp_path, other)


def test_runs_that_are_older_than_compute_dtype_computed_in_float32(tmp_path):
    RunLog(tmp_path, tiny_config("records"), "clips")
    _lacking(tmp_path, "compute_dtype")
    RunLog(tmp_path, tiny_config("records"), "clips")
    _lacking(tmp_path, "compute_dtype")
    with pytest.raises(
        WorkdirError, match=r"compute_dtype: 'float32' in the workdir \(the default: the workdir is older than this key"
    ):
        RunLog(tmp_path, tiny_config("records", compute_dtype="bfloat16"), "clips")


def test_a_key_that_is_no_more_is_refused(tmp_path):
    RunLog(tmp_path, tiny_config("records"), "clips")
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stored, "dropout": 0.5}))
    with pytest.raises(WorkdirError, match=r"dropout: 0\.5 in the workdir, None now"):
        RunLog(tmp_path, tiny_config("records"), "clips")


def test_other_clips_are_refused(tmp_path):
    RunLog(tmp_path, tiny_config("records"), "clips")
    with pytest.raises(WorkdirError, match="clips: 'clips' in the workdir, 'others' now"):
        RunLog(tmp_path, tiny_config("records"), "others")


def test_a_broken_config_file_and_checkpoints_without_one_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WorkdirError, match=r"config\.json: unreadable"):
        RunLog(tmp_path, tiny_config("records"), "clips")
    (tmp_path / "config.json").unlink()
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(WorkdirError, match="checkpoints but no config"):
        RunLog(tmp_path, tiny_config("records"), "clips")


_HEADER = "epoch,step,train_loss\n"


@pytest.mark.parametrize(
    ("contents", "sound"),
    [
        (_HEADER + "1,10,0.5\n2,20\n", ["10"]),
        (_HEADER + "1,10,0.5\n2\n3,30,0.25\n", ["10", "30"]),
        (_HEADER + "1,10,0.5,7,8\n2,20,0.25\n", ["20"]),
        (_HEADER + "one,10,0.5\n2,20,0.x\n3,30,\n", ["30"]),
        (_HEADER + "1," + "9" * 5000 + ",0.5\n", []),
        (_HEADER + "1,10,0.5\n\0\0\0\0\n", ["10"]),
        (_HEADER + '1,10,0.5\n"' + "x" * 200_000, ["10"]),
        ("<html>\n</html>\n", []),
        ("epoch,train_loss\n1,0.5\n", []),
        (b"\xff\xfe\x00\n1\n", []),
        ("", []),
        (_HEADER, []),
    ],
)
def test_a_damaged_metrics_file_does_not_stop_a_run_and_is_kept(tmp_path, caplog, contents, sound):
    contents = contents.encode() if isinstance(contents, str) else contents
    log = RunLog(tmp_path, tiny_config("records"), "clips")
    (tmp_path / "metrics.csv").write_bytes(contents)
    log.resume(40)
    log.epoch(5, 50, {"train_loss": 0.1, "test_top1": 0.5})
    log.close()
    assert [row["step"] for row in _rows(tmp_path)] == [*sound, "50"]
    assert (tmp_path / "metrics.csv.damaged1").read_bytes() == contents
    assert f"{tmp_path / 'metrics.csv'}: damaged" in caplog.text


def test_shares_are_shown_in_percent_and_terms_of_zero_are_not(tmp_path, capsys):
    log = RunLog(tmp_path, tiny_config("records"), "clips")
    log.resume(0)
    log.epoch(1, 10, {"train_loss": 0.5, "train_contrastive": 0.0, "test_top1": 0.25, "test_mean_class": 0.125})
    log.close()
    shown = "epoch 1 step 10: train_loss 0.5, test_top1 25.00 %, test_mean_class 12.50 %"
    assert shown in capsys.readouterr().out


def test_rows_that_are_missing_are_noted(tmp_path, caplog):
    log = RunLog(tmp_path, tiny_config("records"), "clips")
    (tmp_path / "metrics.csv").write_text(_HEADER + "1,10,0.5\n3,30,0.25\n")
    log.resume(40)
    log.close()
    assert "the rows of 2 epochs before step 40 are missing" in caplog.text


@pytest.mark.parametrize("contents", ['{"starts": null}', '{"starts": 3}', "[]", "null", "{}", "[" * 100_000, "{"])
def test_a_version_file_that_lists_no_starts_is_an_error_with_the_remedy(tmp_path, contents):
    log = RunLog(tmp_path, tiny_config("records"), "clips")
    (tmp_path / "version.json").write_text(contents)
    with pytest.raises(WorkdirError, match=r"version\.json: unreadable .*restore or remove it"):
        log.resume(0)


@pytest.mark.parametrize(
    "contents",
    [
        "[]",
        "null",
        "3",
        '"config"',
        '{"name": "of another program"}',
        '{"data": [], "model": {}}',
        '{"data": {"records": "a"}, "model": {"backbone": 3}}',
        "[" * 100_000,
        '{"a":' * 900 + "0" + "}" * 900,
        '{"seed": ' + "9" * 5000 + "}",
    ],
)
def test_a_config_file_of_something_else_is_refused_and_kept(tmp_path, contents):
    path = tmp_path / "config.json"
    path.write_text(contents)
    for check in (lambda: RunLog(tmp_path, tiny_config("records"), "clips"), lambda: _evaluated(tmp_path)):
        with pytest.raises(WorkdirError, match=r"config\.json: (unreadable|holds no config)"):
            check()
    assert path.read_text() == contents


def _evaluated(workdir):
    check_evaluation(workdir, tiny_config("records"))
