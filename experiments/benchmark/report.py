"""What a benchmark prints: Markdown tables with their caption; and the same as JSON."""

import datetime
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.benchmark import machine
from experiments.benchmark.harness import Timing
from mmcl_jax.runtime.version import commit


class Report:
    """Collects tables, prints each as it comes, and writes all of them as JSON at the end."""

    def __init__(self, command: str):
        self._contents: dict[str, Any] = {
            "command": command,
            "commit": commit(),
            "date": datetime.date.today().isoformat(),
            "machine": machine.measured(machine.describe),
            "tables": [],
        }
        caption = ", ".join(f"{key} {value}" for key, value in self._contents["machine"].items())
        print(f"`{command}`, commit {self._contents['commit']}, {self._contents['date']}; {caption}\n", flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], **figures: Any) -> None:
        """Prints a table; `figures` go into the JSON beside it."""
        lines = [columns, ["---"] * len(columns), *rows]
        print(f"**{title}**\n")
        print("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n", flush=True)
        rows = [dict(zip(columns, row, strict=True)) for row in rows]
        self._contents["tables"].append({"title": title, "rows": rows, **figures})

    def ceilings(self) -> machine.Ceilings:
        """Measures what the machine can do at most, prints and returns it."""
        ceilings = machine.measured(machine.measure_ceilings)
        rates = [(name, f"{rate / 1e9:.0f} GFLOP/s") for name, rate in ceilings.products.items()]
        self.table("Ceilings", ("what", "measured"), [*rates, ("copy", f"{ceilings.copy / 1e9:.1f} GB/s")])
        return ceilings

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
                rows.append((timing.name, "-", "-", f"not run: {timing.unavailable}", *["-"] * len(ceilings)))
                continue
            median, low, high = timing.ratio_to(first)
            amounts = [(timing.details.get(what), rate) for what, rate in ceilings.values()]
            fractions = [f"{amount / timing.median / rate:.0%}" if amount and rate else "-" for amount, rate in amounts]
            ratio = "1" if timing is first else f"{median:.2f} ({low:.2f} to {high:.2f})"
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
            }
            for timing in timings
        ]
        self.table(
            title, columns, rows, timings=stored, units=units, ceiling=ceiling, copy_ceiling=copy_ceiling, **figures
        )

    def write(self, path: pathlib.Path) -> None:
        """Writes everything as JSON."""
        path.write_text(json.dumps(self._contents, indent=1) + "\n", encoding="utf-8")
        print(f"written: {path}")
