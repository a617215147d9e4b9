"""The same NTU clips as `data_prep.ntu` reads them and in the formats of other projects, for the importers' tests."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from configs import ntu60
from data_prep import ntu
from mmcl_jax import train
from mmcl_jax.data import input_pipeline, ntu_skeletons, records
from tests.helpers import documents, golden, ntu_files, runs

PADDED = 110  # frames that arrays are padded to; 300 as published would only take longer


def prepare(folder: pathlib.Path) -> records.Records:
    """Records of made-up clips, and of the reference clips where they are: both parts of xsub, one and two persons."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for name, text in (
        ("S001C001P001R001A001", ntu_files.one_person()),
        ("S001C003P002R001A005", ntu_files.one_person(30, seed=5)),
        ("S002C002P003R002A060", ntu_files.two_persons()),
        ("S003C001P006R001A008", ntu_files.one_person(15, seed=3)),
        ("S004C002P009R001A050", ntu_files.two_persons(25)),
        ("S004C003P013R001A031", _found_under_another_id()),
    ):
        (raw / f"{name}.skeleton").write_text(text)
    if "MMCL_TEST_DATA" in os.environ:
        for path in (golden.golden_folder() / "ntu_raw").glob("*.skeleton"):
            shutil.copy(path, raw)
    ntu.prepare(raw, folder / "ntu", workers=1)
    return records.Records(folder / "ntu")


def _found_under_another_id() -> str:
    """One person under two ids in turn: the published preprocessing makes a second actor of it who is never seen."""
    joints = ntu_files.make_joints(np.random.default_rng(8), 40, motion=0.02)
    return ntu_files.to_text([[(ntu_files.FIRST_ID + (frame >= 20), body)] for frame, body in enumerate(joints)])


def arrays(opened: records.Records, benchmark: str, copies: bool) -> dict[str, np.ndarray]:
    """What CTR-GCN's `align_frames` and `split_dataset` make of clips; `copies`: as for NTU RGB+D 120."""
    made = {}
    num_classes = len(opened.class_names(benchmark))
    for part in ("train", "test"):
        rows = opened.select(benchmark, part)
        x = np.zeros((len(rows), PADDED, 150), np.float32)
        for place, row in enumerate(rows):
            bodies = [body.reshape(len(body), 75) for body in opened.skeleton(row)]
            if len(bodies) == 1:
                bodies.append(bodies[0] if copies else np.zeros_like(bodies[0]))
            x[place, : len(bodies[0])] = np.hstack(bodies)
        made[f"x_{part}"] = x
        made[f"y_{part}"] = np.eye(num_classes)[opened.index["label"][rows]]
    return made


def annotations(opened: records.Records, dtype=np.float32) -> dict:
    """pyskl's annotations of clips: not translated, (M, T, V, C), split as its `ntu_preproc.py` does it."""
    raw = pathlib.Path(opened.root).parent / "raw"
    made = []
    for name, label in zip(opened.index["name"].tolist(), opened.index["label"].tolist(), strict=True):
        joints = ntu_skeletons.denoise(ntu_skeletons.read(raw / f"{name}.skeleton")).joints
        keypoint = joints.transpose(1, 0, 2, 3).astype(dtype)
        made.append({"frame_dir": name, "label": label, "keypoint": keypoint, "total_frames": len(joints)})
    split = {
        f"{protocol}_{part}": opened.index["name"][opened.select(f"ntu60_{protocol}", selected)].tolist()
        for protocol in ("xsub", "xview")
        for part, selected in (("train", "train"), ("val", "test"))
    }
    return {"split": split, "annotations": made}


def set_aside(out: pathlib.Path) -> dict[str, str]:
    return {item["name"]: item["reason"] for item in json.loads((out / "set_aside.json").read_text())}


def first_batch(opened: records.Records, protocol: str) -> dict[str, np.ndarray]:
    """All training clips in order, as batches hold them."""
    rows = opened.select(protocol, "train")
    return next(input_pipeline.eval_batches(opened, rows, batch_size=len(rows)))


def train_two_steps(opened: records.Records, workdir: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
    """Trains and evaluates by configs/ntu60.py, but with the backbone of docs/own-backbone.md: it compiles fast."""
    documents.add_backbone(patch)
    config = ntu60.get_config("xsub,joint,skeleton_only").unlock()
    count = len(opened.select("ntu60_xsub", "train"))
    tiny = {"data.records": str(opened.root), "data.window": 8, "model.backbone": "tiny_gcn", "model.base_channels": 4}
    config.update_from_flattened_dict({**tiny, "batch_size": count, "num_epochs": 2, "eval_every_epochs": 2})
    config.model.batch_norm_group_size = config.loss.contrastive_group_size = None
    train.train(config, workdir)
    assert runs.saved_steps(workdir)[-1] == 2
    scores = runs.read_scores(workdir)["scores"]
    assert scores.shape == (len(opened.select("ntu60_xsub", "test")), 60)
    assert np.isfinite(scores).all()
