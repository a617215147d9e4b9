"""A page of a small model, once for all tests of this folder; they are skipped where Node.js or its packages lack."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from mmcl_jax import trained_model
from mmcl_jax.runtime.backend import HASTY
from mmcl_jax.trained_model import TrainedModel
from mmcl_jax.web.folder import export_web
from mmcl_jax.web.packages import PackagesError, fetch_packages
from tests.helpers.shallow import make_shallow
from tests.recognition import people


@pytest.fixture(scope="session")
def packages() -> pathlib.Path:
    """The npm packages of the page."""
    if shutil.which("node") is None:
        pytest.skip("no Node.js")
    try:
        return fetch_packages()
    except PackagesError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="package", autouse=True)
def _shallow():
    with pytest.MonkeyPatch.context() as patch:
        make_shallow(patch.setitem)
        patch.setattr(trained_model, "gpu_compiler_options", lambda: HASTY)  # compiling takes most of the time
        yield


@pytest.fixture(scope="package", autouse=True)
def _no_proxy_for_this_machine():
    """What these tests fetch from their own servers is not asked of a proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"])))
        yield


@pytest.fixture(scope="package")
def model() -> TrainedModel:
    """Random weights for COCO's joints, windows of 1.6 seconds at 10 frames a second."""
    return people.tiny_model(frame_rate=people.RATE, window_seconds=1.6, threshold=0.1)


@pytest.fixture(scope="package")
def page(model, packages, tmp_path_factory) -> pathlib.Path:
    """The exported folder."""
    out = tmp_path_factory.mktemp("page") / "page"
    pytest.importorskip("onnx", reason="no onnx; pip install '.[onnx]'")
    export_web(model, out)
    (out / "package.json").write_text(json.dumps({"type": "module"}))  # so that every Node.js reads its modules
    return out


def run_node(*arguments, given=None) -> str:
    """What a script prints; `given` is its standard input, as JSON."""
    text = None if given is None else json.dumps(given)
    done = subprocess.run(["node", *map(str, arguments)], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
