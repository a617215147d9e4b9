"""Numerics at the edge: crowds, single clips and classes, the shortest and longest clips, values never looked at."""

import dataclasses

import numpy as np
import pytest

from mmcl_jax import train
from mmcl_jax.config import get_config, without_images_and_text
from mmcl_jax.data import records
from mmcl_jax.data.layouts import Layout
from mmcl_jax.runtime.errors import ConfigError
from tests.helpers import documents, runs

LAYOUT = Layout.from_names(joints="a, b, c, d", bones="b < a, c < b, d < c", centre="a")
INFO = records.DatasetInfo(
    dataset="edges",
    layout=LAYOUT,
    units="metres",
    class_names=("many", "a single clip", "never trained"),
    protocols={"xsub": records.Protocol("subject", (1,))},
)


def clip(number: int, label: int, subject: int, frames: int, bodies: int) -> records.Clip:
    skeleton = np.random.default_rng(number).normal(0, 0.4, (frames, bodies, 4, 3)).astype(np.float32)
    return records.Clip(f"clip {number}", label, subject, 1, 1, 1, skeleton)


def config(folder, **changes):
    made = without_images_and_text(get_config())
    tiny = {
        "data.records": str(folder),
        "data.window": 8,
        "model.backbone": "tiny_gcn",
        "batch_size": 4,
        "num_epochs": 1,
    }
    made.update_from_flattened_dict({**tiny, "batch_size": 4, "num_epochs": 1, "warmup_epochs": 0, **changes})
    return made.lock()


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    """The backbone of docs/own-backbone.md, which compiles fast."""
    documents.add_backbone(monkeypatch)


def test_ten_bodies_single_clips_absent_classes_and_the_longest_clip_train_and_are_scored(tmp_path):
    shapes = [(1, 1), (10_000, 2), (9, 10), (20, 1), (8, 3), (7, 1), (30, 2), (12, 4)]  # frames, bodies
    trained = [clip(number, int(number == 3), 1, *shape) for number, shape in enumerate(shapes)]
    tested = [clip(20, 0, 2, 1, 10), clip(21, 2, 2, 2000, 1), clip(22, 2, 2, 5, 2)]
    folder, workdir = tmp_path / "records", tmp_path / "run"
    records.write_records(folder, INFO, [*trained, *tested])
    train.train(config(folder, eval_batch_size=64), workdir)  # more than the three test clips
    scores = runs.read_scores(workdir)
    assert scores["scores"].shape == (3, 3) and np.isfinite(scores["scores"]).all()
    assert scores["labels"].tolist() == [0, 2, 2]
    (row,) = runs.read_rows(workdir)
    assert np.isfinite([float(row[name]) for name in ("train_loss", "test_loss", "test_mean_class")]).all()
    with pytest.raises(ConfigError, match="batch_size 9 is more than the 8 clips of an epoch; lower it"):
        train.train(config(folder, batch_size=9), tmp_path / "other")


def test_a_single_class_is_always_right(tmp_path):
    info = dataclasses.replace(INFO, class_names=("only",))
    folder, workdir = tmp_path / "records", tmp_path / "run"
    records.write_records(folder, info, [clip(number, 0, 1 + number // 4, 10, 1) for number in range(6)])
    train.train(config(folder), workdir)
    (row,) = runs.read_rows(workdir)
    assert (float(row["test_top1"]), float(row["test_mean_class"])) == (1, 1)
    assert abs(float(row["test_loss"])) < 1e-6
    assert runs.read_scores(workdir)["scores"].shape == (2, 1)


@pytest.mark.parametrize("frame", [0, 500, 999])
def test_a_frame_that_sampling_never_looks_at_is_checked_as_well(tmp_path, frame):
    good = clip(0, 0, 1, 1000, 1)
    bad = clip(1, 0, 1, 1000, 1)
    bad.skeleton[frame, 0, 2, 1] = np.nan
    records.write_records(tmp_path / "records", INFO, [good, bad])
    assert records.Records(tmp_path / "records").index["name"].tolist() == ["clip 0"]
