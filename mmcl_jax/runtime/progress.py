"""Progress bars: on a terminal a bar that moves, in a file a line now and then; and lines beside them."""

import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

_SECONDS = 30.0  # between two lines in a file


def progress_bar(items: Iterable | None = None, **options: Any) -> Any:
    """`tqdm.tqdm` over `items` on the standard error, with its options; not on a terminal, a line each half minute.

    The bar measures time with a clock that nobody can set. tqdm takes the computer's: if that is set back by an hour,
    the bar stops for an hour, and one that ends before shows a time below zero.
    """
    from tqdm import tqdm

    if not sys.stderr.isatty():
        options = {"file": _Lines(sys.stderr), "mininterval": _SECONDS, **options}
    # miniters=1: the bar looks at the clock after every item. With others, a thread of tqdm looks at the computer's.
    bar: Any = tqdm(items, miniters=1, **options)
    if not bar.disable:
        bar._time = time.monotonic
        bar.start_t = bar.last_print_t = bar._time()
    return bar


def say(text: str) -> None:
    """Writes a line on the standard error; bars that are there move below it."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


class _Lines:
    """Writes each state of a bar, which tqdm would draw over the one before, as a line."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        """Writes `text` without carriage returns; a text of only blanks, which erases a bar, is nothing."""
        line = text.strip("\r\n ")
        if line:
            self._stream.write(line + "\n")

    def flush(self) -> None:
        """Passes on to the stream what was written."""
        self._stream.flush()
