"""Runs of the main command, each in its own process: describes a run, reads its progress, starts or resumes it."""

import contextlib
import dataclasses
import pathlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.scores import read_scores
from mmcl_jax import config_files
from mmcl_jax.run_log import EARLY_STOP, check_training
from mmcl_jax.runtime.errors import ConfigError, MMCLError
from mmcl_jax.runtime.signals import StopSignal
from mmcl_jax.runtime.tables import TableError, read_table

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_PREFIX = "--config."


class LaunchError(MMCLError, RuntimeError):
    """A config that cannot be read, or a run that failed. The message says which."""


class Stopped(Exception):
    """A signal stopped a run; the run saved its state, and the same command resumes it."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of `python -m mmcl_jax.main`.

    Attributes:
      config: config file with its arguments.
      workdir: folder of the run.
      overrides: values of config keys, such as `("seed", "1")`; of a repeated key the last value counts.
    """

    config: str
    workdir: pathlib.Path
    overrides: tuple[tuple[str, str], ...] = ()

    @property
    def arguments(self) -> list[str]:
        """The arguments after `python`."""
        keys = [f"{_PREFIX}{key}={value}" for key, value in dict(self.overrides).items()]
        return ["-m", "mmcl_jax.main", f"--config={self.config}", f"--workdir={self.workdir}", *keys]

    def __str__(self) -> str:
        """The command, to copy into a shell."""
        return shlex.join(["python", *self.arguments])

    def read_config(self) -> "ConfigDict":
        """The config as the run reads it. Raises: LaunchError."""
        return read_config(self.config, tuple(dict(self.overrides).items()))

    def epochs_done(self) -> int:
        """The number of complete epochs of this config in the workdir; 0 if the run has not started.

        Raises: WorkdirError if another config made the workdir, LaunchError if its log cannot be read.
        """
        if not (self.workdir / "config.json").exists():
            return 0
        check_training(self.workdir, self.read_config())
        rows = _epochs(self.workdir)
        return int(rows[-1]["epoch"]) if rows else 0

    def read_accuracies(self) -> dict[int, float]:
        """Top-1 on the test clips by evaluated epoch, 0 to 1. Raises: LaunchError if the log cannot be read."""
        return {int(row["epoch"]): float(row["test_top1"]) for row in _epochs(self.workdir) if row.get("test_top1")}

    def is_finished(self) -> bool:
        """Whether the last epoch, or an earlier one at which it stopped, and its scores are present.

        Raises: as `epochs_done`, and ScoresError.
        """
        scores, ended = self.workdir / "scores_test.npz", (self.workdir / EARLY_STOP).exists()
        if (self.epochs_done() != self.read_config().num_epochs and not ended) or not scores.exists():
            return False
        return read_scores(scores).step == int(_epochs(self.workdir)[-1]["step"])

    def execute(self) -> None:
        """Starts or resumes the training in its own process, which prints to the same terminal.

        A stop signal is passed on; the run saves its state and ends. Raises: Stopped, LaunchError.
        """
        # A separate process group: otherwise Ctrl-C would reach the run twice, and the second one stops it unsaved.
        process = subprocess.Popen([sys.executable, *self.arguments], start_new_session=True)
        asked = False
        try:
            with StopSignal() as stop:
                while process.poll() is None:
                    if stop.requested and not asked:
                        process.send_signal(signal.SIGTERM)
                        asked = True
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=0.5)
        finally:
            if process.poll() is None:  # interrupted a second time
                process.send_signal(signal.SIGINT)
                process.wait()
        if asked and process.returncode == -signal.SIGTERM:  # before it installed its handler; no work is lost
            raise Stopped(f"{self.workdir}: stopped; start the same command again")
        if process.returncode:
            raise LaunchError(f"{self.workdir}: the run ended with status {process.returncode}; its message is above")
        if not self.is_finished():
            raise Stopped(f"{self.workdir}: stopped and saved; start the same command again to resume")


def read_config(config: str, overrides: Sequence[tuple[str, str]] = ()) -> "ConfigDict":
    """The config of a file with its arguments and overrides, as the main command reads it. Raises: LaunchError."""
    try:
        return config_files.load(config, overrides)
    except ConfigError as error:
        raise LaunchError(str(error)) from error


def split_overrides(arguments: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The overrides among the arguments that a parser did not know. Raises: LaunchError for any other argument."""
    overrides = []
    for argument in arguments:
        key, equals, value = argument.removeprefix(_PREFIX).partition("=")
        if not argument.startswith(_PREFIX) or not equals:
            raise LaunchError(f"{argument!r} is not an option; set a config key as {_PREFIX}KEY=VALUE")
        overrides.append((key, value))
    return tuple(overrides)


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """The different whole numbers of a comma-separated option. Raises: LaunchError."""
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers) or len(set(map(int, numbers))) < len(numbers):
        raise LaunchError(f"{option}={text}: expected different whole numbers, such as 0,1,2")
    return tuple(map(int, numbers))


def _epochs(workdir: pathlib.Path) -> list[dict[str, str]]:
    path = workdir / "metrics.csv"
    if not path.exists() or not path.stat().st_size:
        return []
    try:
        rows = [cells for _, cells in read_table(path, ("epoch", "step"), None)]
        return [row for row in rows if int(row["epoch"]) and int(row["step"])]
    except TableError as error:
        raise LaunchError(f"{error}; restore it, or use another workdir") from error
    except ValueError as error:
        raise LaunchError(f"{path}: unreadable ({error!r}); restore it, or use another workdir") from error
