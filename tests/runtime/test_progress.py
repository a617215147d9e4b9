"""Progress bars: a file gets lines, and few of them."""

import itertools
import sys

from mmcl_jax.runtime.progress import progress_bar


def test_a_file_gets_a_few_whole_lines(capsys):
    for number in progress_bar(range(2000), unit="clip", desc="clips"):
        assert number >= 0
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 4
    assert all(line.startswith("clips:") and "\r" not in line for line in lines)
    assert "2000/2000" in lines[-1]


def test_a_terminal_gets_a_moving_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for _ in progress_bar(range(3), desc="clips"):
        pass
    assert "\r" in capsys.readouterr().err


def test_a_clock_that_is_set_back_neither_stops_a_bar_nor_makes_its_times_negative(capsys, monkeypatch):
    hours = itertools.count(1_000_000, -3600)
    for clock in ("time.time", "tqdm.std.time"):  # tqdm has a name of its own for it
        monkeypatch.setattr(clock, lambda: next(hours))
    with progress_bar(total=3, mininterval=0) as bar:
        for _ in range(3):
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert all(any(f" {done}/3 " in line for line in lines) for done in range(4)), lines
    assert not any("-" in line for line in lines), lines
