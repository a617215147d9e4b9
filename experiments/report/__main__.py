"""Shows one run, or several side by side, on a self-contained web page (no network, no server).

    python -m experiments.report RUN [RUN ...] [--out report.html] [--clips N] [--records DIR]

RUN is the --workdir of a training run, finished or not; the page says what is missing. Runs are compared with the first
one that has scores. Figures are those of the last epoch, never of the best one.
"""

import argparse
import pathlib
from collections.abc import Sequence

from experiments.report.page import COMMAND, make_page, notes, page_data
from experiments.report.runs import read_runs
from mmcl_jax.runtime.errors import plain_errors
from mmcl_jax.runtime.options import positive
from mmcl_jax.viewers import html_page


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN", help="the --workdir of a training run")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("report.html"), help="the page to write")
    parser.add_argument("--clips", type=positive, default=24, help="number of hardest clips to show (default 24)")
    parser.add_argument("--records", type=pathlib.Path, help="the records, if they were moved after the training")
    options = parser.parse_args(arguments)
    with plain_errors("interrupted"):
        html_page.check_replaceable(options.out, COMMAND)
        runs = read_runs(options.runs)
        data = page_data(runs, options.clips, options.records)
        page = make_page(data)
        html_page.write(options.out, page)
    size = len(page.encode())
    for note in notes(data, size):
        print(f"note: {note}")
    print(f"{options.out}: {', '.join(run.name for run in runs)}, {size / 1e6:.2f} MB; open it in a browser")


if __name__ == "__main__":
    main()
