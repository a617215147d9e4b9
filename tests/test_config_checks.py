"""Values of a config that are refused, with the key and a remedy."""

import importlib.util

import pytest

from mmcl_jax.task import build_training_task
from tests.helpers import documents
from tests.helpers.runs import tiny_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__backbone": "gcn"}, r"model\.backbone 'gcn' is not one of ctrgcn"),
        ({"model__graph": "spatial"}, r"model\.graph 'spatial' is not one of natural, hierarchical"),
        ({"model__center_of_mass": 3}, r"model\.center_of_mass 3 is not one of 1, 2, 21"),
        ({"model__graph": "spiral"}, r"model\.graph 'spiral' is not one of natural, hierarchical"),
        ({"model__graph": "hierarchical", "model__backbone": "hdgcn"}, "is only for ctrgcn; hdgcn has its own"),
        ({"model__base_channels": 6}, "base_channels 6 is not a positive multiple of 4"),
        ({"model__image_encoder": "vgg"}, r"model\.image_encoder 'vgg' is not one of efficientnet_lite0, inception_v3"),
        ({"model__refinement_matrices": "dense"}, "refinement_matrices 'dense' is not one of diagonal, full"),
        ({"model__batch_norm_group_size": 3}, r"model\.batch_norm_group_size 3 does not divide batch_size 8"),
        ({"loss__contrastive_group_size": 5}, r"loss\.contrastive_group_size 5 does not divide batch_size 8"),
        ({"loss__contrastive": "published"}, r"loss\.contrastive 'published' is not one of released, paper"),
        ({"data__text_scaling": "minmax"}, r"data\.text_scaling 'minmax' is not one of none, standardise"),
        ({"compute_dtype": "float16"}, "compute_dtype 'float16' is not one of float32, bfloat16"),
        ({"data__stream": "velocity"}, "stream 'velocity' is not one of joint, bone"),
        ({"data__protocol": "xview"}, "protocol 'xview' is not one of"),
        ({"data__validation_subjects": (4,)}, r"validation subjects \[4\] are not among the training subjects"),
        ({"data__records": ""}, "records is empty; name the folder"),
        ({"seed": -1}, "seed -1 is negative"),
        ({"data__crop_interval": (0.5,)}, r"data\.crop_interval \(0\.5,\) has 1 values, expected 2"),
        ({"data__crop_interval": (0.5, 1e30)}, r"crop_interval \(0\.5, 1e\+30\) is not two fractions"),
        ({"data__crop_interval": (0.9, 0.5)}, r"crop_interval \(0\.9, 0\.5\) is not two fractions"),
        ({"data__crop_interval": (0.0, 1.0)}, "is not two fractions"),
        ({"data__crop_interval": (0.5, float("nan"))}, r"data\.crop_interval nan is not a finite number"),
        ({"data__test_crop": 0.0}, r"test_crop 0\.0 is not a fraction"),
        ({"data__rotation": -0.3}, r"rotation -0\.3 is not an angle"),
        ({"weight_decay": float("inf")}, "weight_decay inf is not a finite number"),
        ({"weight_decay": -1e-4}, r"weight_decay -0\.0001 is negative"),
        ({"learning_rate": 1e39}, r"learning_rate 1e\+39 is not a finite number of float32"),
        ({"loss__temperature": float("nan")}, r"loss\.temperature nan is not a finite"),
        ({"model__mmd_weights": (float("inf"), 0.1)}, r"model\.mmd_weights inf is not a finite"),
        ({"warmup_epochs": -1}, "warmup_epochs -1 is negative"),
        ({"drop_epochs": (5, -1)}, "drop_epochs -1 is negative"),
        ({"momentum": 1.0}, r"momentum 1\.0 is not within 0 and 1"),
        ({"data__prefetch": -1}, r"data\.prefetch -1 is negative"),
        ({"seed": 2**63}, "seed has 64 bits"),
        ({"seed": 10**4000}, "seed has 13288 bits"),
        ({"num_epochs": 2**64}, "num_epochs has 68 bits"),
        ({"drop_epochs": (2**31,)}, "drop_epochs has 32 bits"),
        ({"data__window": -(2**31)}, r"data\.window has 32 bits"),
        ({"log_every_steps": 0}, "log_every_steps 0 is not a positive number"),
        ({"checkpoint_every_steps": -1}, "checkpoint_every_steps -1 is negative"),
        ({"model__refinement_terms": 0}, r"model\.refinement_terms 0 is not a positive number"),
        ({"batch_size": 128}, "batch_size 128 is more than the 96 clips of an epoch"),
        ({"optimizer": "adam"}, "optimizer 'adam' is not one of sgd, adamw"),
        ({"schedule": "linear"}, "schedule 'linear' is not one of step, cosine"),
        ({"schedule": "cosine", "warmup_epochs": 2}, "warmup_epochs 2 leaves nothing of num_epochs 2 for the cosine"),
        ({"gradient_clip": -1.0}, r"gradient_clip -1\.0 is negative"),
        ({"ema_decay": 1.0}, r"ema_decay 1\.0 is not within 0 and 1"),
        ({"freeze": "classifier"}, "freeze 'classifier' is not one of none, backbone"),
        ({"freeze": "backbone"}, "would keep random weights; name trained ones with --config.init_from"),
        ({"backbone_learning_rate_scale": 0.0}, "use --config.freeze=backbone"),
        ({"freeze": "backbone", "init_from": "W", "backbone_learning_rate_scale": 0.1}, "set one of them"),
        ({"loss__label_smoothing": 1.0}, r"loss\.label_smoothing 1\.0 is not within 0 and 1"),
        ({"loss__label_smoothing": 0.1, "model__backbone": "infogcn"}, r"has a key of its own, model\.label_smoothing"),
        ({"loss__class_weights": "equal"}, r"loss\.class_weights 'equal' is not one of none, balanced"),
        ({"loss__mixup": -0.2}, r"loss\.mixup -0\.2 is negative"),
        ({"loss__mixup": 0.2}, "mixes clips, but neither their images nor their text"),
        ({"data__flip": 2.0}, r"data\.flip 2\.0 is not a probability"),
        ({"data__train_fraction": 0.0}, r"data\.train_fraction 0\.0 is not a fraction"),
        ({"early_stopping_epochs": 2}, r"add --config\.keep_best=True"),
        ({"keep_best": True}, "needs a validation split, because the test split must not choose"),
    ],
)
def test_values_that_do_not_fit_are_refused(tiny_records, changes, message):
    with pytest.raises(ValueError, match=message):
        build_training_task(tiny_config(tiny_records, **changes))


def test_a_loss_without_weights_cannot_balance_classes(tiny_records, monkeypatch):
    documents.add_backbone(monkeypatch)
    module = type(build_training_task(tiny_config(tiny_records, model__backbone="tiny_gcn")).skeleton.backbone)
    monkeypatch.setattr(module, "classification_loss", staticmethod(lambda logits, aux, labels: logits.mean()))
    with pytest.raises(
        ValueError, match=r"loss\.class_weights: the classification_loss of tiny_gcn takes no 'weights'"
    ):
        build_training_task(tiny_config(tiny_records, model__backbone="tiny_gcn", loss__class_weights="balanced"))


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_weights_and_biases_must_be_installed(tiny_records):
    with pytest.raises(ValueError, match="wandb_project 'mine': wandb is not installed; pip install wandb"):
        build_training_task(tiny_config(tiny_records, wandb_project="mine"))
