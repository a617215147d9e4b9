"""An ONNX file in ONNX Runtime says what `predict` says, of clips of any number and length."""

import json

import numpy as np
import pytest

from mmcl_jax.deploy import onnx_model
from mmcl_jax.deploy.exported import ExportError
from mmcl_jax.deploy.manifest import describe_export
from tests.deploy import models
from tests.helpers import documents

onnx = pytest.importorskip("onnx", reason="no onnx; pip install '.[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime; pip install '.[onnx]'")


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("case", models.CASES, ids=lambda case: case.backbone)
def test_probabilities_are_those_of_predict(case, predicted):
    model, clips, expected = predicted(case)
    made = onnx_model.to_onnx(model)
    run = session(made)
    for length, filling in ((40, 0.0), (64, 50.0)):  # what comes after a clip's end does not matter
        skeleton, frames = models.pad(clips, length, filling)
        (found,) = run.run(["probabilities"], {"skeleton": skeleton, "frames": frames})
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    for number, clip in enumerate(clips):  # one by one
        frames = np.array([len(clip)], np.int32)
        (found,) = run.run(None, {"skeleton": clip[None], "frames": frames})
        np.testing.assert_allclose(found[0], expected[number], rtol=0, atol=1e-5)
    nobody = {"skeleton": np.zeros_like(clips[0])[None], "frames": np.array([3], np.int32)}
    np.testing.assert_allclose(run.run(None, nobody)[0].sum(), 1, rtol=1e-5)
    told = {each.key: each.value for each in made.metadata_props}
    assert json.loads(told["class_names"]) == list(models.CLASSES)
    assert json.loads(told["inputs"]) == describe_export(model, False, "float32")["inputs"]
    assert told["backbone"] == case.backbone


def test_the_lines_of_the_page(predicted, tmp_path, monkeypatch, capsys):
    model, clips, expected = predicted(models.CASES[0])
    onnx_model.export_onnx(model, tmp_path / "nw_ucla_onnx")
    np.save(tmp_path / "clip.npy", clips[2])
    monkeypatch.chdir(tmp_path)
    exec(documents.code_blocks()["deploy_onnx.py"], {})
    action, probability = capsys.readouterr().out.rsplit(maxsplit=1)
    assert action == models.CLASSES[expected[2].argmax()]
    assert float(probability) == pytest.approx(expected[2].max(), abs=1e-5)


def test_transformed_clips_can_be_the_input(predicted):
    case = models.CASES[0]
    model, clips, expected = predicted(case)
    transformed = np.stack([model._transform(model._check(clip, "clip"), case.bodies) for clip in clips])
    run = session(onnx_model.to_onnx(model, features=True))
    assert [each.name for each in run.get_inputs()] == ["skeleton"]
    np.testing.assert_allclose(run.run(None, {"skeleton": transformed})[0], expected, rtol=0, atol=1e-5)


def test_smaller_types(predicted, caplog):
    model, clips, expected = predicted(models.CASES[1])
    skeleton, frames = models.pad(clips, 40)
    size = {}
    for dtype, tolerance in (("float32", 1e-5), ("float16", 2e-3), ("int8", 5e-2)):
        made = onnx_model.to_onnx(model, dtype=dtype)
        (found,) = session(made).run(None, {"skeleton": skeleton, "frames": frames})
        difference = np.abs(found - expected).max()
        assert difference < tolerance
        size[dtype] = sum(len(each.raw_data) for each in made.graph.initializer)
        assert dtype == "float32" or difference > 1e-6  # they are other numbers
        assert "onnx.quant.pre_process" not in {entry.key for entry in made.metadata_props}
    assert not caplog.records  # no advice of ONNX Runtime to prepare a model for quantization
    assert size["int8"] < size["float16"] < size["float32"]


def test_what_cannot_be_exported_is_said(predicted, monkeypatch):
    model, _, _ = predicted(models.CASES[0])
    with pytest.raises(ExportError, match="dtype 'int4' is not one of float32, float16, int8"):
        onnx_model.to_onnx(model, dtype="int4")
    with monkeypatch.context() as patch:
        patch.setattr("mmcl_jax.deploy.backbone_nodes.NODES", {})
        with pytest.raises(ExportError, match="CTRGCN has no ONNX nodes"):
            onnx_model.to_onnx(model)
