"""Markdown tables, as the commands here print their results."""

from collections.abc import Iterable


def markdown_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """The lines of a table; a `|` within a cell is escaped."""
    lines = [columns, ["---" for _ in columns], *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
