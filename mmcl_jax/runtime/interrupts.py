"""Ctrl-C while a command still imports its packages."""

import sys
from types import TracebackType


def quiet_start() -> None:
    """If Python was started to run one of our commands, an interruption ends it with a word instead of a traceback.

    Our packages call this when they are imported, before anything else is. The status stays that of an interruption.
    """
    if sys.argv[:1] != ["-m"] and not sys.argv[0].rpartition("/")[2].startswith("mmcl-"):
        return  # a program that uses the library
    other = sys.excepthook

    def say(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
        else:
            other(kind, error, traceback)

    sys.excepthook = say
