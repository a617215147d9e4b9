"""Errors that users can fix: commands print them without a traceback. All others keep theirs."""

import contextlib


class MMCLError(Exception):
    """The base class of every error that a user can fix. The message names the file, the value seen and the remedy."""


class PreparationError(MMCLError):
    """A preparation that cannot go on. Names file or folder and remedy; commands print it without a traceback."""


@contextlib.contextmanager
def plain_errors():
    """Ends a command on a PreparationError, or on Ctrl-C, with a message alone."""
    try:
        yield
    except PreparationError as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt as error:
        raise SystemExit("interrupted; nothing was changed") from error
