"""The messages of a command: which of them a user sees, and a file that keeps them."""

import contextlib
import logging
import pathlib

from absl import logging as absl_logging

_LIBRARIES = ("orbax", "asyncio", "tensorflow_datasets", "xla_bridge")


def is_ours(entry: logging.LogRecord) -> bool:
    """Whether a log entry is not a library's: those log each step of a save or a read, and a failure many times."""
    return not any(library in entry.pathname for library in _LIBRARIES)


class _Handler(logging.FileHandler):
    """Writes to a file; what it cannot write is lost. A full disk ends a run where it saves, not where it speaks."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        del record


class MessageFile:
    """Adds what is logged and said, with the time, to the end of a text file. If it cannot, the program goes on."""

    def __init__(self, path: pathlib.Path):
        """Keeps the messages from now on in the file `path`, until `close`."""
        self._handler = _Handler(path, encoding="utf-8", errors="backslashreplace", delay=True)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._handler.addFilter(is_ours)
        absl_logging.get_absl_logger().addHandler(self._handler)

    def say(self, text: str) -> None:
        """Adds a message that is not logged."""
        self._handler.handle(logging.makeLogRecord({"msg": text, "levelname": "INFO", "levelno": logging.INFO}))

    def close(self) -> None:
        """Keeps no more messages."""
        absl_logging.get_absl_logger().removeHandler(self._handler)
        self._handler.close()
