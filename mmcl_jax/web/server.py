"""Shows a folder in the browser of this machine."""

import functools
import http.server
import io
import pathlib
from http import HTTPStatus
from typing import BinaryIO, ClassVar

from mmcl_jax.runtime.errors import MMCLError

HOST = "127.0.0.1"
PORT = 8437  # few other programs use it: a browser keeps camera permissions and the offline page by address


class ServerError(MMCLError, OSError):
    """A port that cannot be used."""


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar = {  # of the standard library, but for what some systems call otherwise
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".onnx": "application/octet-stream",
        ".tflite": "application/octet-stream",
    }

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        # A site whose name leads to this machine must not read what is served here (DNS rebinding).
        if self.headers.get("Host", "").partition(":")[0].lower() not in (HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN, explain=f"This server answers only to localhost and {HOST}.")
            return None
        return super().send_head()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # after another export, the same address shows another model
        super().end_headers()

    def log_message(self, format: str, *args) -> None:
        """Prints nothing for each file."""


def open_server(folder: pathlib.Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server of the folder's files, on the loopback address only; `serve_forever` starts it.

    It refuses requests whose Host header names another machine.

    Args:
      folder: with an `index.html`, at the latest when it is asked for.
      port: 0: any that is free.

    Raises: ServerError if the port is taken.
    """
    handler = functools.partial(_Handler, directory=str(folder))
    try:
        return http.server.ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise ServerError(f"--port={port}: cannot be used ({error.strerror}); name another one") from error


def address(server: http.server.ThreadingHTTPServer) -> str:
    """Where a browser finds the page. Browsers give the camera to pages of this machine."""
    return f"http://{HOST}:{server.server_port}/"
