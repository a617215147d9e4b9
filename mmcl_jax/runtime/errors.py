"""What a user can mend: the errors that commands print without a traceback."""

import contextlib


class MMCLError(Exception):
    """What a user can mend, in input, options or surroundings: names file, value seen and remedy.

    Every such error of this project is one of these; any other exception is a fault of the program.
    """


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
