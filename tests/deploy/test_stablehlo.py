"""A StableHLO file says what `predict` says, of clips of any number and length; a damaged one is refused."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import mmcl_jax
from mmcl_jax import bundle, export
from mmcl_jax.deploy import stablehlo
from mmcl_jax.deploy.exported import ExportError
from mmcl_jax.runtime.backend import HASTY
from tests.deploy import models
from tests.helpers import documents
from tests.helpers.shallow import make_shallow

_ALONE = """
import sys
import numpy as np
import mmcl_jax
model = mmcl_jax.load_exported("out")
given = np.load("clips.npz")
np.save("found.npy", model.probabilities(given["skeleton"], given["frames"]))
loaded = {name.partition(".")[0] for name in sys.modules} & {"flax", "orbax", "grain", "tensorflow_datasets", "optax"}
assert not loaded, loaded
"""


@pytest.fixture(scope="module")
def folder(predicted, tmp_path_factory):
    """A folder with `out`, which the command made of a bundle of the second case."""
    model, _, _ = predicted(models.CASES[1])
    folder = tmp_path_factory.mktemp("stablehlo")
    variables = {kind: {"backbone": tree} for kind, tree in model.variables.items()}
    bundle.write_bundle(folder / "bundle", model.description, variables, bundle.Provenance())
    with pytest.MonkeyPatch.context() as patch:
        make_shallow(patch.setitem, models.STAGES)
        export.main([str(folder / "bundle"), str(folder / "out"), "--format=stablehlo"])
    return folder


@pytest.mark.parametrize("case", models.CASES, ids=lambda case: case.backbone)
def test_probabilities_are_those_of_predict(case, predicted):
    model, clips, expected = predicted(case)
    exported = jax.export.deserialize(bytearray(stablehlo.serialize(model)))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    run = jax.jit(exported.call, compiler_options=HASTY)
    skeleton, frames = models.pad(clips, 41, 50.0)  # what comes after a clip's end does not matter
    np.testing.assert_allclose(run(skeleton, frames), expected, rtol=0, atol=1e-5)
    one = run(clips[1][None], np.array([len(clips[1])], np.int32))
    np.testing.assert_allclose(one[0], expected[1], rtol=0, atol=1e-5)


def test_a_file_runs_with_jax_alone(folder, predicted):
    _, clips, expected = predicted(models.CASES[1])
    skeleton, frames = models.pad(clips, 40)
    np.savez(folder / "clips.npz", skeleton=skeleton, frames=frames)
    subprocess.run([sys.executable, "-c", _ALONE], cwd=folder, check=True)
    np.testing.assert_allclose(np.load(folder / "found.npy"), expected, rtol=0, atol=1e-5)


def test_the_lines_of_the_page(folder, predicted, tmp_path, monkeypatch, capsys):
    _, clips, expected = predicted(models.CASES[1])
    (tmp_path / "nw_ucla_stablehlo").symlink_to(folder / "out")
    np.save(tmp_path / "clip.npy", clips[2])
    monkeypatch.chdir(tmp_path)
    exec(documents.code_blocks()["deploy_jax.py"], {})
    action, probability = capsys.readouterr().out.rsplit(maxsplit=1)
    assert action == models.CLASSES[expected[2].argmax()]
    assert float(probability) == pytest.approx(expected[2].max(), abs=1e-5)


def test_what_does_not_fit_is_refused(folder, tmp_path):
    model = mmcl_jax.load_exported(folder / "out" / "model.stablehlo")
    assert model.class_names == models.CLASSES
    with pytest.raises(ExportError, match=r"skeleton of shape \[1, 5, 2, 16, 4\], expected \['N', 'T', 2, 17, 4\]"):
        model.probabilities(np.ones((1, 5, 2, 16, 4)))
    with pytest.raises(ExportError, match=r"skeleton of shape \[5\], expected"):
        model.probabilities(np.ones(5))
    with pytest.raises(ExportError, match=r"frames \[6\], expected 1 to 5"):
        model.probabilities(np.ones((1, 5, 2, 17, 4)), np.array([6]))
    with pytest.raises(ExportError, match="expected a whole number for each of 1 clips"):
        model.probabilities(np.ones((1, 5, 2, 17, 4)), np.array([1.5]))
    damaged = tmp_path / "damaged"
    shutil.copytree(folder / "out", damaged)
    contents = bytearray((damaged / "model.stablehlo").read_bytes())
    contents[100] ^= 1
    (damaged / "model.stablehlo").write_bytes(contents)
    with pytest.raises(ExportError, match="its SHA-256 differs"):
        mmcl_jax.load_exported(damaged)
    manifest = json.loads((damaged / "model.json").read_text())
    (damaged / "model.json").write_text(json.dumps({**manifest, "file": "model.onnx"}))
    with pytest.raises(ExportError, match=r"holds model\.onnx; run it with ONNX Runtime"):
        mmcl_jax.load_exported(damaged)
    with pytest.raises(ExportError, match="give the folder that the export wrote"):
        mmcl_jax.load_exported(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format=stablehlo", "--dtype=float16"], "--dtype has no effect on --format=stablehlo"),
        (["--format=onnx", "--modules=all"], "--modules has no effect on --format=onnx"),
        (["--features"], "--features has no effect on --format=bundle"),
        (["--dtype=int8"], "a bundle's weights are float32 or float16"),
    ],
)
def test_options_without_effect_are_refused(options, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        export.main(["nothing", str(tmp_path / "out"), *options])
