"""Errors that users can fix, and how a command ends on one: with a message and no traceback. All others keep theirs.

Errors of a single module are defined in it. Here are the base class and the errors that several rooms raise.
"""

import contextlib
import errno
import pathlib
import re
import signal
import threading
from collections.abc import Iterator

# At the end of XLA's messages: [executable_name='jit__train_steps']
_TAGS = re.compile(r"( \[[\w-]+='[^']*'\])+$")
_REFUSED = {
    errno.EROFS: "read-only; name a place that you may write to",
    errno.EACCES: "access is denied; change its permissions, or name another place",
}


class MMCLError(Exception):
    """The base class of every error that a user can fix. The message names the file, the value seen and the remedy."""


class ConfigError(MMCLError, ValueError):
    """A config value, or an argument in its place, that does not fit the rest. Names the key and what fits."""


class SourceFileError(MMCLError, ValueError):
    """A source file that cannot be used. The message is the reason, without the file name."""


class PreparationError(MMCLError):
    """A preparation that cannot go on. The message names the file or folder and the remedy."""


def is_memory_full(error: BaseException) -> bool:
    """Whether `error`, of Python or of JAX, says that the memory of the machine or of a device does not suffice.

    An `MMCLError` that quotes such an error has its own message.
    """
    if isinstance(error, MMCLError):
        return False
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("RESOURCE_EXHAUSTED" in str(error) or "OUT_OF_MEMORY" in str(error))
    )


def memory_message(error: BaseException, remedy: str) -> str:
    """What `error`, for which `is_memory_full`, says to a user: how much was asked for, and the remedy."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"the memory does not suffice ({_TAGS.sub('', said).rstrip('.')}). {remedy}"


def file_message(error: Exception) -> str:
    """What `error` says to a user; with a remedy where a file or folder may not be read or written.

    A temporary file, whose name begins with a dot, stands for its folder.
    """
    if not isinstance(error, OSError) or not isinstance(error.filename, str) or error.errno not in _REFUSED:
        return str(error)
    path = pathlib.Path(error.filename)
    return f"{path.absolute().parent if path.name.startswith('.') else path}: {_REFUSED[error.errno]}"


@contextlib.contextmanager
def plain_errors(interrupted: str = "interrupted; nothing was changed") -> Iterator[None]:
    """Runs the body of a command; it ends with status 1 and a message on an error that a user can fix, or on Ctrl-C.

    SIGTERM is a Ctrl-C: what the body has open is closed, and what it has begun to write is removed.

    Those errors are `MMCLError`, OSError and what says that the memory is full. Any other exception is a mistake in the
    program and keeps its traceback.
    """
    is_main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler) if is_main else None
    try:
        yield
    except (MMCLError, OSError) as error:
        raise SystemExit(f"error: {file_message(error)}") from error
    except KeyboardInterrupt as error:
        raise SystemExit(interrupted) from error
    except (MemoryError, RuntimeError) as error:
        if not is_memory_full(error):
            raise
        remedy = "Compute less at a time, or end other programs that use this device"
        raise SystemExit(f"error: {memory_message(error, remedy)}") from error
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)
