"""Markdown tables, the form in which commands print their results."""

from collections.abc import Iterable


def markdown_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table, without a final newline; a `|` inside a cell is escaped."""
    lines = [columns, ["---" for _ in columns], *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
