"""A model in ONNX Runtime: the same logits from the same clips."""

import numpy as np
import pytest

from mmcl_jax.bundle import Provenance, write_bundle
from mmcl_jax.models.mmcl import BACKBONE
from tests.deploy import models
from tests.helpers import documents

pytest.importorskip("onnx", reason="no onnx; pip install '.[onnx]'")
pytest.importorskip("onnxruntime", reason="no onnxruntime; pip install '.[onnx]'")


@pytest.mark.parametrize("case", [models.CASES[0], models.CASES[2]], ids=lambda case: case.backbone)
def test_logits_are_the_model_s_own(case, predicted):
    from mmcl_jax.deploy.onnx_runtime import OnnxRuntimeModel

    model, clips, expected = predicted(case)
    served = OnnxRuntimeModel(model)
    crowd = np.concatenate([clips[1], clips[1] + 0.5], axis=1)  # of more bodies than the training clips had
    own, other = (each.logits([*clips, crowd]) for each in (model, served))
    np.testing.assert_allclose(other, own, rtol=1e-4, atol=1e-4 * np.abs(own).max())
    found = served.predict(clips, names=["a", "b", "c"])
    np.testing.assert_allclose([each.probabilities for each in found], expected, rtol=0, atol=1e-5)
    assert [each.name for each in found] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="clip 0: 3 joints"):
        served.predict(clips[0][:, :, :3])


def test_the_lines_of_the_page(predicted, tmp_path, monkeypatch, capsys):
    model, clips, expected = predicted(models.CASES[0])
    variables = {kind: {BACKBONE: tree} for kind, tree in model.variables.items()}
    write_bundle(tmp_path / "workdir" / "nw_ucla_joint", model.description, variables, Provenance(0, (), "none"))
    np.save(tmp_path / "clip.npy", clips[0])
    monkeypatch.chdir(tmp_path)
    exec(documents.code_blocks()["with_onnx_runtime.py"], {})
    assert models.CLASSES[expected[0].argmax()] in capsys.readouterr().out.partition(",")[0]
