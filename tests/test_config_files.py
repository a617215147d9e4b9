"""Config files by path and by name."""

import json
import pathlib

import pytest
from absl import flags

from mmcl_jax import config_files
from mmcl_jax.runtime.errors import ConfigError


def test_a_name_becomes_the_path_of_a_file_of_the_package():
    path, _, arguments = config_files.locate("nw_ucla:bone,short").partition(":")
    assert arguments == "bone,short"
    assert pathlib.Path(path).is_file() and path.endswith("configs/nw_ucla.py")
    assert config_files.locate("demo").endswith("configs/demo.py")


def test_a_path_stays_as_it_is(tmp_path):
    (tmp_path / "own.py").touch()
    assert config_files.locate(f"{tmp_path}/own.py:bone") == f"{tmp_path}/own.py:bone"


def test_a_missing_file_is_refused_in_one_sentence():
    with pytest.raises(ConfigError, match=r"my/own\.py: no such file; those that come with the package are any_camera"):
        config_files.load("my/own.py:bone")
    with pytest.raises(
        ConfigError, match=r"no such file; --config=demo:bone takes the one that comes with the package"
    ):
        config_files.load("my/demo.py:bone")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"'nw_ucl' is neither a \.py file, a run's config\.json nor one of any_camera, demo"
    ):
        config_files.locate("nw_ucl:bone")


def test_helpers_are_no_configs():
    assert not {"common", "__init__"} & set(config_files.names())


def test_the_flag_reads_a_config_by_name_and_overrides_keys():
    arguments = ["program", "--config=nw_ucla:bone,short", "--config.seed=3"]
    values = flags.FlagValues()
    config_files.define_flag("config", values, sys_argv=arguments)
    values(arguments)
    assert (values.config.data.stream, values.config.num_epochs, values.config.seed) == ("bone", 9, 3)


def test_the_config_of_a_run_that_is_older_than_a_key_has_its_default(tmp_path):
    stored = json.loads(config_files.load("configs/nw_ucla.py:bone").to_json_best_effort())
    del stored["data"]["prefetch"], stored["num_epochs"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**stored, "clips": "0123"}))
    config = config_files.load(str(path), [("learning_rate", "0.5")])
    assert (config.data.prefetch, config.num_epochs, config.learning_rate) == (64, 110, 0.5)
    assert (config.data.stream, config.data.sampling, config.data.window) == ("bone", "view_normalised", 52)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_epoch": 3}, "unknown config key num_epoch"),
        ({"data": {"streams": "joint"}}, r"unknown config key data\.streams"),
        ({"data": 3}, r"config data\. '3': expected an object"),
        ({"num_epochs": "many"}, "num_epochs 'many'"),
        ([], "expected an object"),
    ],
)
def test_a_file_that_is_no_config_of_a_run(tmp_path, change, message):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(change))
    with pytest.raises(ConfigError, match=message) as caught:
        config_files.read_json(path)
    assert str(path) in str(caught.value)
