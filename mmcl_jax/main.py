"""The command: python -m mmcl_jax.main --config=configs/nw_ucla.py:joint --workdir=DIR [--mode=train|eval].

A workdir that holds a run needs no `--config`: its own is used, with the `--config.KEY=VALUE` given.
"""

import itertools
import os
import pathlib
import sys

import jax
from absl import app, flags, logging

from mmcl_jax import config_files, evaluate, train
from mmcl_jax.checkpoints import CheckpointError
from mmcl_jax.runtime import distributed
from mmcl_jax.runtime.backend import keep_compiled_programs, keep_memory, tune_training_compiler
from mmcl_jax.runtime.errors import MMCLError, file_message, is_memory_full, memory_message
from mmcl_jax.runtime.files import is_disk_full
from mmcl_jax.runtime.messages import is_ours

_CONFIG = config_files.define_flag("config")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, scores, logs.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "Train (or resume), or evaluate the newest checkpoint.")
_COMPILED = flags.DEFINE_string(
    "compilation_cache",
    os.environ.get("JAX_COMPILATION_CACHE_DIR"),
    "Folder of compiled programs; '' for none. By default 'compiled' next to the workdir.",
)
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "Several processes: host:port of process 0.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Several processes: the number of this one, from 0.", lower_bound=0)
_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Several processes: how many. Leave all three out on a cluster that JAX knows."
)


def main(arguments: list[str]) -> None:
    """Runs the command. An error that a user can fix ends it with status 1 and a message; others keep their traceback.

    (Unlike other commands, it ends at once on an error: see `distributed.end_now`.)
    """
    if len(arguments) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    keep_memory()
    tune_training_compiler()
    logging.set_verbosity(max(logging.INFO, logging.get_verbosity()))  # --verbosity=1 shows tracebacks of errors
    logging.get_absl_handler().addFilter(is_ours)
    try:
        distributed.join(_COORDINATOR.value, _PROCESS.value, _PROCESSES.value)
        with distributed.shared_fate():
            _work(pathlib.Path(str(_WORKDIR.value)))
    except KeyboardInterrupt:
        distributed.end_now("interrupted; start again: a training resumes from its last complete checkpoint")
    except Exception as error:
        expected = isinstance(error, MMCLError | OSError) or is_memory_full(error)
        if not expected and jax.process_count() == 1:
            raise
        logging.log(logging.DEBUG if expected else logging.ERROR, "traceback of the error below", exc_info=True)
        distributed.end_now(_explain(error))


def _work(workdir: pathlib.Path) -> None:
    distributed.quiet_unless_first()
    folder = workdir.absolute().parent / "compiled" if _COMPILED.value is None else _COMPILED.value
    keep_compiled_programs(pathlib.Path(folder) if folder else None)
    logging.info("devices: %s", ", ".join(str(device) for device in jax.devices()))
    if _MODE.value == "train":
        train.train(_CONFIG.value, workdir)
    else:
        evaluate.evaluate_workdir(_CONFIG.value, workdir)


def _explain(error: Exception) -> str:
    """The message of an error; a full disk, which any write may meet, and a full memory with their remedies."""
    if is_memory_full(error):
        return f"{_WORKDIR.value}: {memory_message(error, _memory_remedy())}"
    if isinstance(error, CheckpointError) or not is_disk_full(error):
        return file_message(error)
    return (
        f"{_WORKDIR.value}: the disk is full ({error}). Make room, then start again: a training resumes from its last "
        "complete checkpoint"
    )


def _memory_remedy() -> str:
    config = _CONFIG.value
    if _MODE.value == "eval":
        return f"Evaluate fewer clips at a time: --config.eval_batch_size, now {config.eval_batch_size}"
    return (
        f"Train on fewer clips at a time (--config.batch_size, now {config.batch_size}) or with "
        "--config.compute_dtype=bfloat16, both in another workdir; or end other programs that use this device, and "
        "start again: a training resumes from its last complete checkpoint"
    )


def _parse_flags(arguments: list[str]) -> list[str]:
    """absl's parser; values that ml_collections refuses end with a message and no traceback."""
    try:
        rest = flags.FLAGS(_with_own_config(arguments))
        for flag in (_CONFIG, _WORKDIR):
            if flag.value is None:
                sys.exit(f"error: {_missing(flag.name)}")
        return rest
    except SystemExit as error:
        sys.exit(error.code if isinstance(error.code, str) else 0)  # --help and the like, which absl calls a failure
    except AttributeError as error:
        if not isinstance(error.args[0], KeyError):
            raise
        sys.exit(f"error: no such config key: {' '.join(error.args[0].args[0].split())}")
    except (flags.Error, OSError) as error:
        # The message about a config file may hold a whole traceback, whose last line says what happened.
        sys.exit(f"error: {str(error).strip().splitlines()[-1].strip().removeprefix('ValueError: ')}")


def _missing(name: str) -> str:
    """What to say where the flag `name` is missing: --config, or --workdir."""
    if _WORKDIR.value is None or _MODE.value == "train":
        return f"--{name} is missing; for example: python -m mmcl_jax.main --config=demo:joint --workdir=workdir/demo"
    return (
        f"--workdir={_WORKDIR.value}: no run's config.json in this folder; name the workdir of a run, or give the "
        "--config that its weights were trained with"
    )


def _with_own_config(arguments: list[str]) -> list[str]:
    """The arguments; without `--config`, if the workdir has the config of a run, with that."""
    workdir = _given(arguments, "workdir")
    if _given(arguments, "config") is not None or not workdir:
        return arguments
    own = pathlib.Path(workdir) / "config.json"
    if not own.is_file():
        return arguments
    sys.argv = [arguments[0], f"--config={own}", *arguments[1:]]  # where ml_collections looks for --config.KEY
    return sys.argv


def _given(arguments: list[str], name: str) -> str | None:
    """The last value of a flag among the arguments, or None."""
    value = None
    for argument, following in itertools.zip_longest(arguments[1:], arguments[2:], fillvalue=""):
        flag, equals, given = argument.partition("=")
        if flag in (f"-{name}", f"--{name}"):
            value = given if equals else following
    return value


def train_command() -> None:
    """The console script `mmcl-train`: this command."""
    # absl shows in --help the flags of the module that runs, which here is the script.
    for flag in flags.FLAGS.get_key_flags_for_module(__name__):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    usage = "--config=FILE.py|NAME[:ARGUMENTS] --workdir=DIR [--config.KEY=VALUE ...]"
    sys.modules["__main__"].__doc__ = f"usage: {pathlib.Path(sys.argv[0]).name} {usage}\n"
    app.run(main, flags_parser=_parse_flags)


def evaluate_command() -> None:
    """The console script `mmcl-evaluate`: this command with `--mode=eval`."""
    flags.set_default(_MODE, "eval")
    train_command()


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
