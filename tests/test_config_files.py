"""Config files by path and by name."""

import pathlib

import pytest
from absl import flags

from mmcl_jax import config_files


def test_a_name_becomes_the_path_of_a_file_of_the_package():
    path, _, arguments = config_files.locate("nw_ucla:bone,short").partition(":")
    assert arguments == "bone,short"
    assert pathlib.Path(path).is_file() and path.endswith("configs/nw_ucla.py")
    assert config_files.locate("demo").endswith("configs/demo.py")


def test_a_path_stays_as_it_is():
    assert config_files.locate("my/own.py:bone") == "my/own.py:bone"


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'nw_ucl' is neither a \.py file nor one of demo, ntu120, "):
        config_files.locate("nw_ucl:bone")


def test_helpers_are_no_configs():
    assert not {"common", "__init__"} & set(config_files.names())


def test_the_flag_reads_a_config_by_name_and_overrides_keys():
    arguments = ["program", "--config=nw_ucla:bone,short", "--config.seed=3"]
    values = flags.FlagValues()
    config_files.define_flag("config", values, sys_argv=arguments)
    values(arguments)
    assert (values.config.data.stream, values.config.num_epochs, values.config.seed) == ("bone", 9, 3)
