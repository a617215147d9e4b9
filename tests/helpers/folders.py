"""What a folder holds, for tests that compare it before and after, or with another."""

import pathlib


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """The bytes of each file beneath `folder`, by its path there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
