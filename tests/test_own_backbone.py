"""The backbone of docs/own-backbone.md, as a reader would copy it, with MMCL around it."""

import jax
import jax.numpy as jnp
import pytest

from mmcl_jax import train
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.models import BACKBONES
from mmcl_jax.models.image_encoders import IMAGE_ENCODERS, ImageEncoder
from tests.helpers import documents, runs


@pytest.fixture
def tiny_gcn(monkeypatch):
    documents.add_backbone(monkeypatch)


def test_the_backbone_keeps_the_contract(tiny_gcn, tiny_records):
    options = runs.tiny_config(tiny_records).model
    model = BACKBONES["tiny_gcn"](5, LAYOUTS["coco"], 2, options)
    clip = jnp.zeros((2, 1, 9, 17, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), clip, train=False))
    features = jax.eval_shape(lambda v: model.apply(v, clip, train=False, method="features"), variables)
    assert features.shape == (2, 1, 5, 17, model.feature_width) == (2, 1, 5, 17, 16)
    logits, aux = jax.eval_shape(lambda v: model.apply(v, clip, train=False), variables)
    assert logits.shape == (2, 5) and aux == {}
    # 3 x 3 -> 16, 5 x 16 -> 16 with biases, two batch norms, 16 -> 5.
    assert train.count_parameters(variables["params"]) == (9 * 16 + 16) + (5 * 16 * 16 + 16) + 2 * 32 + (16 * 5 + 5)


@pytest.mark.slow
def test_the_backbone_trains_with_mmcl_and_is_evaluated(tiny_gcn, tiny_records, tmp_path, monkeypatch):
    monkeypatch.setitem(IMAGE_ENCODERS, "mean_colour", ImageEncoder(runs.MeanColour, image_size=8))
    config = runs.tiny_config(tiny_records, model__backbone="tiny_gcn", model__image_encoder="mean_colour")
    train.train(config, tmp_path / "run")
    first, last = runs.read_rows(tmp_path / "run")
    for term in ("loss", "classification", "contrastive", "refinement"):
        assert 0 < float(last[f"train_{term}"]) < float(first[f"train_{term}"]), term
    assert runs.read_scores(tmp_path / "run")["scores"].shape == (12, 12)
