"""Where `--config` finds config files: a path, the name of one that comes with the package, or a run's config.json."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections.config_flags import config_flags

from mmcl_jax.config import untyped_from_json
from mmcl_jax.runtime.errors import ConfigError

flags.disclaim_key_flags()  # --help of a command shows its --config

_PACKAGE = pathlib.Path(__file__).parent
# Installed, the files are in the package; in a checkout, they are beside it.
_FOLDER = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
_HELPERS = ("__init__", "common")


def names() -> list[str]:
    """The config files that come with the package: `demo`, `ntu120`, ..."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem not in _HELPERS)


def locate(argument: str) -> str:
    """The path of a config file, with its arguments: `ntu120:xsub,joint` becomes `.../ntu120.py:xsub,joint`.

    A path (it ends in `.py` or `.json`) stays as it is. Raises: ValueError for an unknown name and a missing file.
    """
    name, colon, arguments = argument.partition(":")
    if name.endswith((".py", ".json")):
        if not pathlib.Path(name).is_file():
            if (stem := pathlib.Path(name).stem) in names():
                packaged = f"--config={stem}{colon}{arguments}"
                raise ValueError(f"{name}: no such file; {packaged} takes the one that comes with the package")
            raise ValueError(f"{name}: no such file; those that come with the package are {', '.join(names())}")
        return argument
    if name not in names():
        raise ValueError(f"{name!r} is neither a .py file, a run's config.json nor one of {', '.join(names())}")
    return f"{_FOLDER / name}.py{colon}{arguments}"


def define_flag(name: str, values: flags.FlagValues = flags.FLAGS, **options: Any) -> flags.FlagHolder:
    """The flag `--name=FILE.py[:ARGUMENTS]` or `--name=NAME[:ARGUMENTS]`, and `--name.KEY=VALUE` for each key.

    `options` are those of `config_flags.DEFINE_config_file`.
    """
    text = f"Config file with its arguments, or the name of one that comes with the package: {', '.join(names())}."
    holder = config_flags.DEFINE_config_file(name, None, text, values, lock_config=True, **options)
    values[name].parser = _Parser(name)
    return holder


def load(config: str, overrides: Sequence[tuple[str, str]] = ()) -> ml_collections.ConfigDict:
    """The config of `--config=CONFIG` with overrides (key, value), as the commands read it. Raises: ConfigError."""
    arguments = ["config", f"--config={config}", *(f"--config.{key}={value}" for key, value in overrides)]
    values = flags.FlagValues()
    define_flag("config", values, sys_argv=arguments)
    try:
        values(arguments)
        values.config.lock()  # a file that could not be loaded raises when it is first used
    except (AttributeError, KeyError) as error:
        raise ConfigError(f"{config}: no such config key: {' '.join(str(error.args[0]).split())}") from error
    except (flags.Error, OSError, ValueError, TypeError) as error:
        message = str(error).strip().splitlines()[-1].strip().removeprefix(f"flag --config={config}: ")
        named = message.startswith(config.partition(":")[0])
        raise ConfigError(message if named else f"{config}: {message}") from error
    return values.config


def read_json(path: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of a run from its `config.json`. Raises: ConfigError, naming the file."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(stored, dict):
            stored.pop("clips", None)  # which records the run read, no key
        return untyped_from_json(stored)
    except (ConfigError, OSError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not the config of a run ({error}); restore it or give another --config") from error


class _Parser(config_flags.ConfigFileFlagParser):
    def parse(self, path):
        path = locate(path)
        return read_json(pathlib.Path(path)).lock() if path.endswith(".json") else super().parse(path)
