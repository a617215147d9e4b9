"""The table of what exporting changes, of a small model with random weights."""

import argparse

import jax
import numpy as np
import pytest

from experiments import exported
from mmcl_jax.config import Config
from mmcl_jax.data.records import Records
from mmcl_jax.description import describe
from mmcl_jax.trained_model import TrainedModel
from tests.helpers import runs


def test_table(tiny_records, shallow, tmp_path):
    pytest.importorskip("onnxruntime", reason="no onnxruntime; pip install '.[onnx]'")
    records = Records(tiny_records)
    description = describe(Config.of(runs.tiny_config(tiny_records, model__backbone="ctrsgcn")), records)
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(np.float32), description.template())
    options = argparse.Namespace(formats=["onnx-float32"], clips=5, turns=3)
    header, _, *rows = exported.compare(TrainedModel(description, weights), records, options, tmp_path).splitlines()
    assert "top-1 of 5 clips" in header
    predict, onnx = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    assert (predict[0], onnx[0]) == ("predict", "onnx-float32")
    assert predict[2] == onnx[2]
    assert float(onnx[3]) < 1e-5
    assert float(onnx[1].removesuffix(" MB")) == round((tmp_path / "onnx-float32/model.onnx").stat().st_size / 1e6, 2)
