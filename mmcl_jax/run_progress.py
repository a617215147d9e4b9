"""How far a run is: its progress bar with the time left, and the times of its epochs."""

import time

import jax
from absl import logging

from mmcl_jax.runtime.progress import progress_bar
from mmcl_jax.task import TrainingTask


class Progress:
    """The progress bar, and the times of an epoch. A context: leaving it closes the bar."""

    def __init__(self, task: TrainingTask, start: int, began: float):
        """Of a run that goes on at step `start` and whose set-up began at `began`, `time.perf_counter()`."""
        self._batch_size, self._began, self._done = task.config.batch_size, began, start
        self._waited = 0.0
        self._first_step: dict[str, float] = {}  # until the next row of metrics.csv
        self._bar = progress_bar(
            total=task.num_steps, initial=start, unit="step", smoothing=0.05, disable=jax.process_index() > 0
        )
        self.begin_epoch()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_exception) -> None:
        self._bar.close()

    def advance(self, count: int, waited: float) -> None:
        """Adds `count` steps. The seconds `waited` for compilation so far do not count in the time left."""
        self._done += count
        if not self._bar.disable:
            self._bar.start_t += waited - self._waited
            self._bar.last_print_t += waited - self._waited
        self._waited = waited
        self._bar.update(count)

    def show(self, text: str) -> None:
        """Shows `text` after the bar."""
        self._bar.set_postfix_str(text, refresh=False)  # the next `advance` shows it

    def note_first_step(self) -> None:
        """Logs the seconds until the first step was done, which become a column of the next epoch's row."""
        seconds = time.perf_counter() - self._began
        self._first_step = {"first_step_seconds": seconds}
        logging.info("first step done after %.1f s: records, state, compilation", seconds)

    def begin_epoch(self) -> None:
        """The times of the epoch count from now."""
        self._epoch_began, self._epoch_start = time.perf_counter(), self._done

    def epoch_times(self) -> dict[str, float]:
        """Columns of metrics.csv; of an epoch that was resumed, for the part since then."""
        seconds = time.perf_counter() - self._epoch_began
        clips = (self._done - self._epoch_start) * self._batch_size
        first_step, self._first_step = self._first_step, {}
        return {"seconds": seconds, "clips_per_second": clips / seconds, **first_step}
