"""Tables in CSV files: the columns that a reader wants, and one answer to each fault, whoever reads them."""

import csv
import io
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from mmcl_jax.runtime.errors import MMCLError
from mmcl_jax.runtime.files import read_text


class TableError(MMCLError, ValueError):
    """A CSV file that cannot be read, or lacks a column. The message names the file, the line and the remedy."""


class Row(NamedTuple):
    """A row of a table: the number of its last line in the file, and its cells by column, without blanks around them.

    A cell that the row or the table does not have is empty.
    """

    line: int
    cells: dict[str, str]


def read_table(path: pathlib.Path, required: Sequence[str], optional: Sequence[str] | None = ()) -> list[Row]:
    """The rows of a CSV file in UTF-8, with or without a byte order mark, whose first line names the columns.

    Args:
      path: the file.
      required: columns that it must have, in any order.
      optional: columns that it may have. Further ones, which may be misspelt, are noted; None: they are read too.

    Raises: TableError.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: not a readable CSV file in UTF-8 ({error})") from error
    return parse_table(text, path, required, optional)


def parse_table(
    text: str, path: pathlib.Path, required: Sequence[str], optional: Sequence[str] | None = ()
) -> list[Row]:
    """As `read_table`, from the text of the file `path`."""
    reader = csv.reader(io.StringIO(text, newline=""))  # only a new line ends a row, and no separator of Unicode
    rows = []
    try:
        columns = [name.strip() for name in next(reader, [])]
        read = _read_columns(columns, path, required, optional)
        for cells in reader:
            if len(cells) > len(columns):
                raise TableError(
                    f"{path}, line {reader.line_num}: more cells than the {len(columns)} columns of the header; put a "
                    "text that has a comma in double quotes"
                )
            if cells:
                given = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
                rows.append(Row(reader.line_num, {name: given.get(name, "") for name in read}))
    except csv.Error as error:
        raise TableError(f"{path}, line {reader.line_num}: not a line of a CSV file ({error})") from error
    return rows


def _read_columns(
    columns: list[str], path: pathlib.Path, required: Sequence[str], optional: Sequence[str] | None
) -> list[str]:
    """The columns that are read. Raises: TableError if a required one is absent, or one has the name of another."""
    repeated = next((name for name in columns if name and columns.count(name) > 1), None)
    if repeated is not None:
        raise TableError(f"{path}: two columns are called {repeated!r}; rename one")
    if not set(required) <= set(columns):
        perhaps = f" and perhaps {', '.join(optional)}" if optional else ""
        raise TableError(
            f"{path}: columns {columns}; expected a header with {', '.join(required)}{perhaps}, separated by commas"
        )
    if optional is None:
        return [name for name in columns if name]
    known = [*required, *optional]
    unread = [name for name in columns if name and name not in known]
    if unread:
        print(f"NOTE: {path}: not read: {', '.join(unread)}; the columns that are read: {', '.join(known)}")
    return known
