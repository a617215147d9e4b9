"""Shows a folder in the browser of this machine."""

import functools
import http.server
import pathlib
from typing import ClassVar

from mmcl_jax.runtime.errors import MMCLError


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

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # after another export, the same address shows another model
        super().end_headers()

    def log_message(self, format: str, *args) -> None:
        """Prints nothing for each file."""


def open_server(folder: pathlib.Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server of the folder's files, on the loopback address only; `serve_forever` starts it.

    Args:
      folder: with an `index.html`.
      port: 0: any that is free.

    Raises: ServerError if the port is taken.
    """
    handler = functools.partial(_Handler, directory=str(folder))
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise ServerError(f"--port={port}: cannot be used ({error.strerror}); name another one") from error


def address(server: http.server.ThreadingHTTPServer) -> str:
    """Where a browser finds the page. Browsers give the camera to `localhost`."""
    return f"http://localhost:{server.server_port}/"
