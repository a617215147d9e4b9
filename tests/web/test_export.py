"""The exported folder, its server, and what is said where a page cannot be made."""

import json
import re
import socket
import sys
import threading
import urllib.error
import urllib.request

import pytest

from mmcl_jax import export
from mmcl_jax.deploy.exported import ExportError
from mmcl_jax.web import folder, packages
from mmcl_jax.web.packages import PackagesError
from mmcl_jax.web.server import ServerError, address, open_server
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
    listed = re.search(r"new Set\((\[.*\])\)", (page / "offline_worker.js").read_text())
    assert listed
    written = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    assert {*json.loads(listed[1]), "package.json"} == {*written, ""}  # package.json is of these tests


@pytest.fixture
def unfetched(tmp_path, monkeypatch) -> None:
    """The packages are neither in the cache nor can be fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))


def test_what_prevents_an_export_is_said_before_packages_are_fetched(model, tmp_path, monkeypatch, unfetched):
    (tmp_path / "kept.txt").write_text("")
    with pytest.raises(ExportError, match="not an empty folder"):
        folder.export_web(model, tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match="needs the package onnx"):
        folder.export_web(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_taken_port_is_said_before_the_export(tmp_path):
    with open_server(tmp_path) as server, pytest.raises(SystemExit, match="cannot be used"):
        export.main(["nothing", str(tmp_path / "out"), "--format=web", "--serve", f"--port={server.server_port}"])
    assert not (tmp_path / "out").exists()


def test_a_page_is_served_again_without_an_export(page, tmp_path, capsys):
    with export.served_page("nothing", page, port=0) as server:
        said = capsys.readouterr().out
        assert "exported before and served as it is" in said and "classes (" in said
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(address(server)) as answer:
            assert b"What are you doing?" in answer.read()
        server.shutdown()
    (tmp_path / "model.json").write_text((page / "model.json").read_text())
    assert not folder.is_page(tmp_path) and not folder.is_page(tmp_path / "none")


def test_the_server_is_for_this_machine_and_knows_the_types(page):
    with open_server(page) as server:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(ServerError, match=f"--port={server.server_port}: cannot be used"):
            open_server(page, server.server_port)
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
        for host in (f"localhost:{server.server_port}", "LocalHost", "127.0.0.1"):
            with urllib.request.urlopen(urllib.request.Request(base, headers={"Host": host})) as answer:
                assert answer.status == 200
        for host in (f"rebound.example:{server.server_port}", "localhost.example", "127.0.0.1.example", ""):
            for method in ("GET", "HEAD"):
                with pytest.raises(urllib.error.HTTPError, match="403"):
                    urllib.request.urlopen(urllib.request.Request(base, headers={"Host": host}, method=method))
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


@pytest.mark.parametrize("prefix", ["npm error", "npm ERR!"])  # since version 10, and before
def test_the_reason_that_npm_gives(prefix):
    lines = ("code ECONNREFUSED", "errno ECONNREFUSED", "", "connect ECONNREFUSED 127.0.0.1:9")
    assert packages._reason("\n".join(f"{prefix} {line}" for line in lines)) == lines[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format=web", "--features"], "--features has no effect on --format=web"),
        (["--format=onnx", "--serve"], "--serve has no effect on --format=onnx"),
        (["--format=web", "--port=8437"], "--port has no effect without --serve"),
        (["--format=web", "--serve", "--port=99999"], "--port=99999: expected 0 to 65535"),
    ],
)
def test_options(options, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        export.main(["nothing", str(tmp_path / "out"), *options])
