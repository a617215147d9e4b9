"""Every preparation command under one name: `mmcl-prepare NAME ...`, or `python -m data_prep NAME ...`."""

import argparse
import importlib
import pathlib
import sys

# The modules of this folder that are commands.
COMMANDS = {
    "ntu": "NTU RGB+D 60 and 120",
    "nw_ucla": "Northwestern-UCLA",
    "utd_mhad": "UTD-MHAD",
    "sysu": "SYSU 3D HOI",
    "ctrgcn_arrays": "CTR-GCN's arrays of NTU RGB+D",
    "pyskl": "annotation files of pyskl and mmaction2",
    "videos": "your own videos, in folders by class or listed in a table",
    "merge": "several records as one",
    "synthetic": "the demo's dataset, drawn in seconds",
    "text_features": "text features of records that have images",
    "inspect": "a web page that shows records",
}


def main(arguments: list[str] | None = None) -> None:
    listed = "\n".join(f"  {name:<15}{text}" for name, text in COMMANDS.items())
    called = pathlib.Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(
        prog="python -m data_prep" if called == "__main__.py" else called,
        description=f"Raw data to records.\n\nNAME is one of\n{listed}\n\nNAME --help tells the options of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", choices=COMMANDS, help="the command")
    parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="its options")
    parsed = parser.parse_args(arguments)
    sys.argv[0] = f"{parser.prog} {parsed.name}"  # the name in the command's own --help
    importlib.import_module(f"data_prep.{parsed.name}").main(parsed.arguments)


if __name__ == "__main__":
    main()
