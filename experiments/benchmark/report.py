"""What a benchmark prints: Markdown tables with their caption, the same as JSON, and lines for scripts at the end."""

import datetime
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from experiments.benchmark import machine
from experiments.benchmark.harness import Timing
from mmcl_jax.runtime.files import write_whole
from mmcl_jax.runtime.version import commit

_LONGEST_REASON = 200  # characters in a table


class Report:
    """Prints tables as they come, the machine's ceilings first; after each, all of them are written as JSON.

    Attributes:
      machine: what the benchmark runs on.
      failures: 'contender: reason' of each contender that failed.
    """

    def __init__(self, command: str, path: pathlib.Path | None = None):
        self.machine = machine.measured(machine.survey)
        self.failures: list[str] = []
        self._path = path
        self._ratios: list[str] = []
        self._contents: dict[str, Any] = {
            "command": command,
            "commit": commit(),
            "date": datetime.date.today().isoformat(),
            "machine": self.machine.description,
            "tables": [],
        }
        caption = ", ".join(f"{key} {value}" for key, value in self.machine.description.items())
        print(f"`{command}`, commit {self._contents['commit']}, {self._contents['date']}; {caption}\n", flush=True)
        ceilings = self.machine.ceilings
        rates = [(name, f"{rate / 1e9:.0f} GFLOP/s") for name, rate in ceilings.products.items()]
        self.table("Ceilings", ("what", "measured"), [*rates, ("copy", f"{ceilings.copy / 1e9:.1f} GB/s")])

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], **figures: Any) -> None:
        """Prints a table; `figures` go into the JSON beside it."""
        lines = [columns, ["---"] * len(columns), *rows]
        print(f"**{title}**\n")
        print("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n", flush=True)
        rows = [dict(zip(columns, row, strict=True)) for row in rows]
        self._contents["tables"].append({"title": title, "rows": rows, **figures})
        if self._path is not None:
            write_whole(self._path, json.dumps(self._contents, indent=1) + "\n")

    def timings(
        self,
        title: str,
        timings: Sequence[Timing],
        *,
        units: int,
        unit: str,
        ceiling: float | None = None,
        copy_ceiling: float | None = None,
        **figures: Any,
    ) -> None:
        """A table of contenders, each beside the first.

        Args:
          title: above the table.
          timings: the first is what the others are compared with.
          units: how many `unit`s one run works on.
          unit: 'clip'.
          ceiling: FLOP/s of the machine's matrix product; fractions of it where a contender's details say `flops`.
          copy_ceiling: bytes/s of the machine's copies; with it a column more, where details say `bytes`.
          figures: go into the JSON.
        """
        first = timings[0]
        ceilings = {"ceiling": ("flops", ceiling)}
        if copy_ceiling is not None:
            ceilings["copy ceiling"] = ("bytes", copy_ceiling)
        rows = []
        for timing in timings:
            if timing.unavailable:
                reason = timing.unavailable.replace("|", "/")[:_LONGEST_REASON]
                rows.append((timing.name, "-", "-", f"not run: {reason}", *["-"] * len(ceilings)))
                if timing.failed:
                    self.failures.append(f"{timing.name}: {reason}")
                continue
            amounts = [(timing.details.get(what), rate) for what, rate in ceilings.values()]
            fractions = [f"{amount / timing.median / rate:.0%}" if amount and rate else "-" for amount, rate in amounts]
            ratio = "1" if timing is first else "-"
            if timing is not first and not first.unavailable:
                median, low, high = timing.ratio_to(first)
                ratio = f"{median:.2f} ({low:.2f} to {high:.2f})"
                self._ratios.append(f"ratio {_word(title)} {_word(timing.name)} {median:.4g} {low:.4g} {high:.4g}")
            seconds = timing.median
            rows.append((timing.name, f"{1e3 * seconds:.2f}", f"{units / seconds:.1f}", ratio, *fractions))
        ratio = f"times the time of {first.name} (quartiles)"
        columns = ("contender", "ms, median", f"{unit}s / s", ratio, *ceilings)
        stored = [
            {
                "name": timing.name,
                "seconds": timing.seconds.tolist(),
                "details": timing.details,
                "peak_memory": timing.peak_memory,
                "worker_memory": timing.worker_memory,
                "unavailable": timing.unavailable,
                "failed": timing.failed,
            }
            for timing in timings
        ]
        self.table(
            title, columns, rows, timings=stored, units=units, ceiling=ceiling, copy_ceiling=copy_ceiling, **figures
        )

    def close(self) -> None:
        """Prints where the JSON is, and last a line for each ratio, `ratio CASE CONTENDER MEDIAN LOW HIGH`."""
        if self._path is not None:
            print(f"written: {self._path}")
        print("\n".join(self._ratios), end="\n" if self._ratios else "", flush=True)


def _word(name: str) -> str:
    """A title or name in lower case, with hyphens in place of all but letters, digits, points and underscores."""
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-")
