"""Every backbone under MMCL: two epochs of real training on synthetic records, through one config key."""

import functools

import pytest

from mmcl_jax import train
from mmcl_jax.models import BACKBONES
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS, ImageEncoder
from tests import runs

pytestmark = pytest.mark.slow


# CTR-GCN: tests/test_train.py, through the command.
@pytest.mark.parametrize("backbone", sorted(BACKBONES.keys() - {"ctrgcn"}))
def test_two_epochs_under_mmcl(backbone, tiny_records, tmp_path, monkeypatch):
    monkeypatch.setitem(IMAGE_ENCODERS, "mean_colour", ImageEncoder(runs.MeanColour, image_size=8))
    # What training compiles, compiled in a hurry: a few tiny steps run.
    monkeypatch.setattr(train.jax, "jit", functools.partial(train.jax.jit, compiler_options=train._HASTY))
    config = runs.tiny_config(
        tiny_records, model__backbone=backbone, model__image_encoder="mean_colour", learning_rate=0.02
    )
    train.train(config, tmp_path / "run")
    first, last = runs.read_rows(tmp_path / "run")
    for term in ("loss", "classification", "refinement"):
        assert 0 < float(last[f"train_{term}"]) < float(first[f"train_{term}"]), term
    assert float(last["train_contrastive"]) > 0
    assert runs.read_scores(tmp_path / "run")["scores"].shape == (12, 12)
