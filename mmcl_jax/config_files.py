"""Where `--config` finds config files: a path, or the name of one that comes with the package."""

import pathlib
from typing import Any

from absl import flags
from ml_collections.config_flags import config_flags

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

    A path (it ends in `.py`) stays as it is. Raises: ValueError for an unknown name.
    """
    name, colon, arguments = argument.partition(":")
    if name.endswith(".py"):
        return argument
    if name not in names():
        raise ValueError(f"{name!r} is neither a .py file nor one of {', '.join(names())}")
    return f"{_FOLDER / name}.py{colon}{arguments}"


def define_flag(name: str, values: flags.FlagValues = flags.FLAGS, **options: Any) -> flags.FlagHolder:
    """The flag `--name=FILE.py[:ARGUMENTS]` or `--name=NAME[:ARGUMENTS]`, and `--name.KEY=VALUE` for each key.

    `options` are those of `config_flags.DEFINE_config_file`.
    """
    text = f"Config file with its arguments, or the name of one that comes with the package: {', '.join(names())}."
    holder = config_flags.DEFINE_config_file(name, None, text, values, lock_config=True, **options)
    values[name].parser = _Parser(name)
    return holder


class _Parser(config_flags.ConfigFileFlagParser):
    def parse(self, path):
        return super().parse(locate(path))
