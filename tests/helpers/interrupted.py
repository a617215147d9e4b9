"""Commands that are interrupted at a known place: when a signal from outside arrives depends on how busy a machine is.

    python -m tests.helpers.interrupted mmcl_jax.main SIGTERM:7 --config=configs/demo.py --workdir=DIR
    python -m tests.helpers.interrupted mosaics 1 --skeletons=DIR --videos=DIR --out=DIR

The first is that program, or `tests.helpers.shallow`, which sends itself a signal after a step, before a checkpoint of
that step is saved. The second is `data_prep.ntu`, killed when so many mosaics are stored.
"""

import runpy
import signal
import sys
import time


def training(command: list[str], name: str, step: int) -> list[str]:
    """The command of a run (`runs.command`) that sends itself the signal `name` after `step`."""
    python, _, program, *arguments = command
    return [python, "-m", "tests.helpers.interrupted", program, f"{name}:{step}", *arguments]


def _signal_at(number: signal.Signals, at: int) -> None:
    from mmcl_jax.runtime.signals import StopSignal

    stops, sent = StopSignal.stops, []

    def interrupted(self: StopSignal, steps) -> bool:
        steps = list(steps)
        if at in steps:
            signal.raise_signal(number)
            sent.append(at)
        stopping = stops(self, steps)
        if sent and not stopping:  # one of several processes: JAX looks for a signal once a second, and steps are short
            time.sleep(5)
        return stopping

    StopSignal.stops = interrupted


def _kill_after_mosaics(number: int) -> None:
    from data_prep.images import mosaics

    def progress(results, **_):
        for made, result in enumerate(results, start=1):
            yield result
            if made == number:
                signal.raise_signal(signal.SIGKILL)

    mosaics.progress_bar = progress


if __name__ == "__main__":
    program, place = sys.argv.pop(1), sys.argv.pop(1)
    if program == "mosaics":
        from data_prep import ntu

        _kill_after_mosaics(int(place))
        ntu.main(sys.argv[1:])
    else:
        name, _, step = place.partition(":")
        _signal_at(signal.Signals[name], int(step))
        runpy.run_module(program, run_name="__main__")
