"""One self-contained web page: a frame, scripts, styles and a block of JSON. It loads nothing from anywhere.

Text reaches the page within the JSON alone, from which the page's own script makes text nodes, never markup. A content
security policy admits the scripts by their digests, and nothing else: even a text that got out of its place could not
run.
"""

import base64
import hashlib
import html
import json
import pathlib
import re
from collections.abc import Sequence

from mmcl_jax.runtime.errors import PreparationError
from mmcl_jax.runtime.files import clear_disk_errors, write_whole

_FRAME = pathlib.Path(__file__).with_name("html_page.html")
SCRIPT = pathlib.Path(__file__).with_name("html_page.js")
STYLE = pathlib.Path(__file__).with_name("html_page.css")


def fill(command: str, title: str, data, scripts: Sequence[pathlib.Path], styles: Sequence[pathlib.Path]) -> str:
    """The page.

    Args:
      command: whose page it is, as `python -m` takes it.
      title: of the page.
      data: what JSON can hold; the page's scripts find it in the element `data`.
      scripts: JavaScript files, in order.
      styles: CSS files, in order.
    """
    codes = [path.read_text(encoding="utf-8") for path in scripts]
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii") for code in codes]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    # Within a script element '<' may begin its end; JSON can spell it otherwise. NaN would be no JSON.
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
    """Tells a command's pages, which it may replace, from other files."""
    return f'<meta name="generator" content="mmcl_jax {command}">'


def check_replaceable(out: pathlib.Path, command: str) -> None:
    """Raises: PreparationError where `out` is something else than an earlier page of the command."""
    try:
        with out.open("rb") as stream:
            found = _generator(command).encode() in stream.read(2000)
    except FileNotFoundError:
        return
    except OSError as error:
        raise PreparationError(f"{out}: cannot be written ({error}); choose another --out") from error
    if not found:
        raise PreparationError(f"{out}: exists and is no page of this command; choose another --out")


def write(out: pathlib.Path, page: str) -> None:
    """Writes a page, whole or not at all. Raises: PreparationError."""
    try:
        with clear_disk_errors(out.parent):
            write_whole(out, page.encode())
    except OSError as error:
        raise PreparationError(f"{out}: cannot be written ({error}); choose another --out") from error
