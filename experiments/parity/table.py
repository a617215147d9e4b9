"""The table that `experiments.parity` prints."""

MOST_LINES = 5  # of an error


class Table:
    """Prints each row as soon as it is known, and counts the results.

    Attributes:
      compared: the number of rows with a bound.
      failed: the number of rows that exceed it, and of files that could not be judged.
    """

    def __init__(self, names: list[str]):
        self._width = max(map(len, names), default=5)
        self.compared = self.failed = 0
        self._print("model", "compared", "error", "bound", "parameters", "")

    def add(self, model: str, compared: str, error: float, bound: float | None, parameters: int) -> None:
        """Adds one comparison; a row without a bound is shown but not judged."""
        verdict = "not judged"
        if bound is not None:
            good = error <= bound  # NaN is not
            self.compared += 1
            self.failed += not good
            verdict = "ok" if good else "FAIL"
        self._print(model, compared, f"{error:.1e}", f"{bound:.0e}" if bound else "-", f"{parameters:,}", verdict)

    def cannot_judge(self, model: str, reason: str) -> None:
        self.failed += 1
        first, *more = reason.splitlines()[:MOST_LINES]
        left_out = len(reason.splitlines()) - 1 - len(more)
        more += [f"... and {left_out} more"] if left_out else []
        print(f"{model:<{self._width}}  cannot be judged: {first}  FAIL", *more, sep="\n    ", flush=True)

    def remark(self, model: str, text: str) -> None:
        print(f"{model:<{self._width}}  {text}", flush=True)

    def _print(self, model, compared, error, bound, parameters, verdict):
        line = f"{model:<{self._width}}  {compared:<44}  {error:>8}  {bound:>6}  {parameters:>11}  {verdict}"
        print(line.rstrip(), flush=True)

    def finish(self) -> int:
        """Prints the total; returns the exit status."""
        if not self.compared:
            print("nothing was compared: FAIL")
            return 1
        print(f"{self.compared} comparisons, " + (f"{self.failed} FAIL" if self.failed else "all within their bounds"))
        return int(self.failed > 0)
