"""Ctrl-C while a command still imports its packages."""

import pathlib
import sys
from types import TracebackType

_PACKAGES = ("mmcl_jax", "data_prep", "experiments")


def quiet_start() -> None:
    """If Python was started to run one of our commands, an interruption ends it with a word instead of a traceback.

    Our packages call this when they are imported, before anything else is. The status stays that of an interruption.
    """
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    is_module = sys.argv[:1] == ["-m"] and module.partition(".")[0] in _PACKAGES
    if not is_module and not pathlib.PurePath((sys.argv or [""])[0]).name.startswith("mmcl-"):
        return  # a program that uses the library
    other = sys.excepthook

    def say(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
        else:
            other(kind, error, traceback)

    sys.excepthook = say
