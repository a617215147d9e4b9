"""Builds a self-contained web page from a frame, scripts, styles and a block of JSON. The page loads nothing.

Text reaches the page only in the JSON, and the page's own scripts turn it into text nodes, never into markup. A content
security policy admits only the scripts with known digests, so that even text that escaped from its place could not run.
"""

import base64
import hashlib
import html
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import clear_disk_errors, write_whole

_FRAME = pathlib.Path(__file__).with_name("html_page.html")
SCRIPT = pathlib.Path(__file__).with_name("html_page.js")
STYLE = pathlib.Path(__file__).with_name("html_page.css")


def fill(command: str, title: str, data: Any, scripts: Sequence[pathlib.Path], styles: Sequence[pathlib.Path]) -> str:
    """Returns the page as HTML.

    Args:
      command: the command that writes the page, as `python -m` takes it.
      title: title of the page.
      data: data that JSON can hold; the page's scripts find it in the element `data`.
      scripts: JavaScript files, in order.
      styles: CSS files, in order.

    Raises: ValueError if `data` contains NaN or infinity.
    """
    codes = [path.read_text(encoding="utf-8") for path in scripts]
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii") for code in codes]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    # '<' may begin the end of the script element, so it is escaped. NaN is not valid JSON.
    block = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {
        "<!--generator-->": _generator(command),
        "<!--title-->": html.escape(title.encode(errors="replace").decode()),
        "<!--policy-->": f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "/*style*/": "\n".join(path.read_text(encoding="utf-8") for path in styles),
        "<!--data-->": f'<script type="application/json" id="data">{block}</script>',
        "<!--scripts-->": "\n".join(f"<script>{code}</script>" for code in codes),
    }
    marks = "|".join(map(re.escape, parts))
    return re.sub(marks, lambda mark: parts[mark.group()], _FRAME.read_text(encoding="utf-8"))


def _generator(command: str) -> str:
    """The tag that distinguishes a command's pages, which the command may replace, from other files."""
    return f'<meta name="generator" content="mmcl_jax {command}">'


def check_replaceable(out: pathlib.Path, command: str) -> None:
    """Raises: PreparationError if `out` is anything but an earlier page of the command."""
    try:
        with out.open("rb") as stream:
            found = _generator(command).encode() in stream.read(2000)
    except FileNotFoundError:
        return
    except OSError as error:
        raise PreparationError(f"{out}: cannot be written ({error}); choose another --out") from error
    if not found:
        raise PreparationError(f"{out}: exists and is not a page of this command; choose another --out")


def write(out: pathlib.Path, page: str) -> None:
    """Writes a page completely or not at all. Raises: PreparationError if the file cannot be written."""
    try:
        with clear_disk_errors(out.parent):
            write_whole(out, page.encode())
    except OSError as error:
        raise PreparationError(f"{out}: cannot be written ({error}); choose another --out") from error
