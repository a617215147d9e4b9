"""The exported folder, its server, and what is said where a page cannot be made."""

import json
import re
import socket
import urllib.error
import urllib.request

import pytest

from mmcl_jax import export
from mmcl_jax.deploy.exported import ExportError
from mmcl_jax.web import folder, packages
from mmcl_jax.web.packages import PackagesError
from mmcl_jax.web.server import ServerError, open_server
from tests.recognition import people

LOCK = json.loads((packages._PINNED / "package-lock.json").read_text())
_RELATIVE = re.compile(r"""(?:from |import\(?)["'](\./[\w.-]+)["']""")


def test_every_package_is_pinned_with_a_digest():
    wanted = json.loads((packages._PINNED / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"[\d.]+", version) for version in wanted.values())
    installed = {name.removeprefix("node_modules/"): each for name, each in LOCK["packages"].items() if name}
    assert {name: installed[name]["version"] for name in wanted} == wanted
    for each in installed.values():
        assert each["integrity"].startswith("sha512-") and "resolved" not in each  # from the registry that npm uses


def test_the_folder_holds_all_that_the_page_asks_for(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', (page / "index.html").read_text())
    assert policy and "default-src 'none'" in policy[1] and "http" not in policy[1]
    for script in page.glob("*.js"):
        for name in _RELATIVE.findall(script.read_text()):
            assert (page / name).is_file(), (script, name)
    for name in re.findall(r'(?:src|href)="([\w.-]+)"|"(\./vendor[^"]+)"', (page / "index.html").read_text()):
        assert (page / next(filter(None, name))).is_file(), name
    told = json.loads((page / "model.json").read_text())
    assert (page / told["file"]).is_file() and told["class_names"] == list(people.CLASSES)
    poses = json.loads((page / "poses.json").read_text())
    assert (poses["frame_rate"], poses["window_seconds"], poses["confidence"]) == (people.RATE, 1.6, True)
    assert poses["mapping"][5] == [[11, 1.0]]  # COCO's left shoulder
    assert len(poses["bones"]) == 32


def test_a_folder_that_is_not_empty_is_kept(model, page, packages):
    with pytest.raises(ExportError, match="not an empty folder"):
        folder.export_web(model, page)


def test_the_server_is_for_this_machine_and_knows_the_types(page):
    with open_server(page) as server:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(ServerError, match=f"--port={server.server_port}: cannot be used"):
            open_server(page, server.server_port)
        import threading

        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/"
        for name, kind in (
            ("", "text/html"),
            ("main.js", "text/javascript"),
            ("model.onnx", "application/octet-stream"),
        ):
            with urllib.request.urlopen(base + name) as answer:
                assert answer.headers["Content-Type"] == kind
        wasm = "vendor/onnxruntime/ort-wasm-simd-threaded.wasm"
        with urllib.request.urlopen(urllib.request.Request(base + wasm, method="HEAD")) as answer:
            assert answer.headers["Content-Type"] == "application/wasm"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(base + "%2e%2e/secret")
        server.shutdown()


def test_without_npm_or_a_network_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with socket.socket() as closed:  # a port where nobody answers
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{closed.getsockname()[1]}/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    if packages.shutil.which("npm"):
        with pytest.raises(
            PackagesError, match=r"npm could not fetch .*ECONNREFUSED.* Without a network, run the same"
        ):
            packages.fetch_packages()
        assert list((tmp_path / "cache" / "mmcl_jax" / "web").iterdir()) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackagesError, match=r"npm is missing: install Node\.js"):
        packages.fetch_packages()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format=web", "--features"], "--features has no effect on --format=web"),
        (["--format=onnx", "--serve"], "--serve has no effect on --format=onnx"),
        (["--format=web", "--port=99999"], "--port=99999: expected 0 to 65535"),
    ],
)
def test_options(options, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        export.main(["nothing", str(tmp_path / "out"), *options])
