"""The version of the code that runs."""

import pathlib
import subprocess


def commit() -> str:
    """The checkout's commit, with '-dirty' if files differ from it; 'unknown' outside a git checkout."""
    root = pathlib.Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed, perhaps in an environment inside another project's checkout
        return "unknown"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
