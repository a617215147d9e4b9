"""Every backbone under MMCL: two epochs of real training on synthetic records, through one config key."""

import functools

import flax.linen as nn
import numpy as np
import pytest

from mmcl_jax import evaluate, train
from mmcl_jax.models import BACKBONES
from mmcl_jax.models.blocks import cross_entropy_of_logits
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS, ImageEncoder
from mmcl_jax.runtime.backend import HASTY
from tests.helpers import runs

pytestmark = pytest.mark.slow


# CTR-GCN: tests/test_train.py, through the command.
@pytest.mark.parametrize("backbone", [pytest.param("hdgcn", marks=pytest.mark.long), "ctrsgcn", "infogcn"])
def test_two_epochs_under_mmcl(backbone, tiny_records, tmp_path, shallow, monkeypatch):
    monkeypatch.setitem(IMAGE_ENCODERS, "mean_colour", ImageEncoder(runs.MeanColour, image_size=8))
    # What training compiles, compiled in a hurry: a few tiny steps run.
    monkeypatch.setattr(train.jax, "jit", functools.partial(train.jax.jit, compiler_options=HASTY))
    config = runs.tiny_config(
        tiny_records, model__backbone=backbone, model__image_encoder="mean_colour", learning_rate=0.02
    )
    train.train(config, tmp_path / "run")
    first, last = runs.read_rows(tmp_path / "run")
    for term in ("loss", "classification", "refinement"):
        assert 0 < float(last[f"train_{term}"]) < float(first[f"train_{term}"]), term
    assert float(last["train_contrastive"]) > 0
    assert runs.read_scores(tmp_path / "run")["scores"].shape == (12, 12)


class WithoutNorms(nn.Module):
    """A backbone that keeps no statistics."""

    num_classes: int
    feature_width: int = 8
    classification_loss = staticmethod(cross_entropy_of_logits)

    def setup(self):
        self.joints, self.fc = nn.Dense(self.feature_width), nn.Dense(self.num_classes)

    def features(self, x, train):
        return nn.relu(self.joints(x))

    def head(self, features, train):
        return self.fc(features.mean(axis=(1, 2, 3))), {}

    def __call__(self, x, train):
        return self.head(self.features(x, train), train)


def test_a_backbone_without_batch_norms_trains_resumes_and_is_evaluated(tiny_records, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKBONES, "without_norms", lambda num_classes, *_: WithoutNorms(num_classes))
    config = runs.tiny_config(tiny_records, model__backbone="without_norms", loss__contrastive_weight=0.0)
    train.train(config, tmp_path / "run")
    train.train(config, tmp_path / "run")
    scores = runs.read_scores(tmp_path / "run")["scores"]
    evaluate.evaluate_workdir(config, tmp_path / "run")
    np.testing.assert_array_equal(runs.read_scores(tmp_path / "run")["scores"], scores)
