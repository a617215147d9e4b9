"""What a config means: which text set, which images, which values are refused."""

import shutil

import numpy as np
import pytest

from mmcl_jax import experiment, graphs
from mmcl_jax.records import RecordsError
from tests.runs import tiny_config

TEXT_SET = "stand_in/holding/token_ids"


@pytest.mark.parametrize("text", ["stand_in/holding", "stand_in/holding/", TEXT_SET, "stand_in"])
def test_a_text_set_is_found_by_its_beginning(tiny_records, text):
    assert experiment.build_training_task(tiny_config(tiny_records, data__text=text)).text_set == TEXT_SET


@pytest.mark.parametrize("text", ["", "stand", "blip/holding", TEXT_SET + "/more"])
def test_a_text_set_that_is_not_there_is_an_error_that_lists_those_that_are(tiny_records, text):
    with pytest.raises(RecordsError, match="names 0 of the text sets") as caught:
        experiment.build_training_task(tiny_config(tiny_records, data__text=text))
    assert TEXT_SET in str(caught.value)


def test_two_text_sets_that_fit_are_an_error(tiny_records, tmp_path):
    folder = tmp_path / "records"
    shutil.copytree(tiny_records, folder)
    shutil.copytree(folder / "text" / TEXT_SET, folder / "text" / "stand_in/holding/other")
    with pytest.raises(RecordsError, match="names 2 of the text sets"):
        experiment.build_training_task(tiny_config(folder))


def test_text_statistics_are_those_of_the_training_clips(tiny_records):
    task = experiment.build_training_task(tiny_config(tiny_records, data__text_scaling="standardise"))
    features = np.stack([task.skeleton.records.text(int(row), TEXT_SET) for row in task.rows])
    mean, deviation = task.text_statistics
    standardised = (features - mean) / deviation
    assert features[:, 0].std() == 0  # the same first token for every clip
    np.testing.assert_allclose(standardised.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(standardised.std(axis=0), [0, 1, 0], rtol=1e-5)
    assert experiment.build_training_task(tiny_config(tiny_records, data__text_scaling="none")).text_statistics is None


def test_what_is_missing_is_named_with_the_switch_that_does_without(tiny_records, tmp_path):
    folder = tmp_path / "records"
    shutil.copytree(tiny_records, folder)
    shutil.rmtree(folder / "images")
    with pytest.raises(RecordsError, match="24 of 24 training clips have no images") as caught:
        experiment.build_training_task(tiny_config(folder))
    assert "--config.loss.contrastive_weight=0" in str(caught.value)
    shutil.rmtree(folder / "text")
    with pytest.raises(RecordsError, match=r"--config\.loss\.refinement_weight=0"):
        experiment.build_training_task(tiny_config(folder, loss__contrastive_weight=0.0))
    task = experiment.build_training_task(
        tiny_config(folder, loss__contrastive_weight=0.0, loss__refinement_weight=0.0)
    )
    assert (task.text_set, task.image_size, task.model.alignment, task.model.refinement) == (None, None, None, None)


def test_a_frozen_encoder_is_no_part_of_the_model(tiny_records):
    task = experiment.build_training_task(tiny_config(tiny_records, model__image_encoder_frozen=True))
    assert task.model.image_encoder is None
    assert task.model.alignment is not None
    assert task.image_size == 96


@pytest.mark.parametrize("graph", graphs.GRAPHS)
def test_ctrgcn_starts_from_the_graph_that_the_config_names(tiny_records, graph):
    config = tiny_config(tiny_records, model__graph=graph, model__center_of_mass=21)
    adjacency = experiment.build_training_task(config).skeleton.backbone.adjacency
    np.testing.assert_array_equal(adjacency, graphs.GRAPHS[graph](graphs.LAYOUTS["ntu"], 21))
    assert not np.array_equal(adjacency, graphs.GRAPHS["natural"](graphs.LAYOUTS["ntu"], 21)) or graph == "natural"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__backbone": "gcn"}, r"model\.backbone 'gcn' is not one of ctrgcn"),
        ({"model__graph": "spatial"}, r"model\.graph 'spatial' is not one of natural, hierarchical"),
        ({"model__center_of_mass": 3}, r"model\.center_of_mass 3 is not one of 1, 2, 21"),
        ({"model__graph": "spiral"}, r"model\.graph 'spiral' is not one of natural, hierarchical"),
        ({"model__graph": "hierarchical", "model__backbone": "hdgcn"}, "is for ctrgcn alone; hdgcn has its own"),
        ({"model__base_channels": 6}, "base_channels 6 is not a positive multiple of 4"),
        ({"model__image_encoder": "vgg"}, r"model\.image_encoder 'vgg' is not one of inception_v3, resnet34"),
        ({"model__refinement_matrices": "dense"}, "refinement_matrices 'dense' is not one of diagonal, full"),
        ({"model__batch_norm_group_size": 3}, "batch_norm_group_size 3 does not divide batch_size 8"),
        ({"loss__contrastive_group_size": 5}, "contrastive_group_size 5 does not divide batch_size 8"),
        ({"loss__contrastive": "published"}, r"loss\.contrastive 'published' is not one of released, paper"),
        ({"data__text_scaling": "minmax"}, r"data\.text_scaling 'minmax' is not one of none, standardise"),
        ({"data__stream": "velocity"}, "stream 'velocity' is not one of joint, bone"),
        ({"data__protocol": "xview"}, "protocol 'xview' is not one of"),
        ({"data__validation_subjects": (4,)}, r"validation subjects \[4\] are not among the training subjects"),
        ({"data__records": ""}, "records is empty; name the folder"),
        ({"log_every_steps": 0}, "log_every_steps 0 is not a positive number"),
        ({"model__refinement_terms": 0}, r"model\.refinement_terms 0 is not a positive number"),
        ({"batch_size": 128}, "batch_size 128 is more than the 96 clips of an epoch"),
    ],
)
def test_values_that_do_not_fit_are_refused(tiny_records, changes, message):
    with pytest.raises(ValueError, match=message):
        experiment.build_training_task(tiny_config(tiny_records, **changes))
