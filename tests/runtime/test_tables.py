"""CSV tables: what is read, and one answer to each fault. Their readers' tests have those of their columns."""

import re

import pytest

from mmcl_jax.runtime.tables import TableError, read_table


def test_columns_in_any_order_with_a_mark_and_blanks_and_without_the_last_cells(tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_text('\ufeff label ,file,splt\n\n "a\u2028b","x, y.mp4",one\nc\n', encoding="utf-8")
    first, second = read_table(path, ("file", "label"), ("split",))
    assert (first.line, first.cells) == (3, {"file": "x, y.mp4", "label": '"a\u2028b"', "split": ""})
    assert (second.line, second.cells) == (4, {"file": "", "label": "c", "split": ""})
    assert capsys.readouterr().out == (f"NOTE: {path}: not read: splt; the columns that are read: file, label, split\n")
    assert read_table(path, ("file",), None)[0].cells["splt"] == "one"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "columns []; expected a header with file, label and perhaps split, separated by commas"),
        (b"file;label\na;b\n", "columns ['file;label']; expected a header with file, label"),
        (b"file,Label\na,b\n", "columns ['file', 'Label']; expected"),
        (b"file,label,file\na,b,c\n", "two columns are called 'file'; rename one"),
        (b"file,label\na,b\na,b,c\n", "line 3: more cells than the 2 columns of the header; put a text"),
        (b"file,label\na," + b"x" * 200_000, "line 2: not a line of a CSV file (field larger"),
        (b"file,label\n\xff", "not a readable CSV file in UTF-8 ("),
    ],
)
def test_faults_are_named(tmp_path, contents, message):
    path = tmp_path / "table.csv"
    path.write_bytes(contents)
    with pytest.raises(TableError, match=re.escape(message)) as caught:
        read_table(path, ("file", "label"), ("split",))
    assert str(caught.value).startswith(str(path))
