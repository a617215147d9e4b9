"""Writes a model as a page: a folder that any static server serves."""

import base64
import hashlib
import json
import pathlib
import re
import shutil
import tempfile
from typing import Any

from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.deploy.exported import FORMAT, MANIFEST, ExportError
from mmcl_jax.deploy.onnx_model import export_onnx
from mmcl_jax.poses.types import PIXELS
from mmcl_jax.recognition.clips import ClipMaker
from mmcl_jax.recognition.recognizer import USUAL_WINDOW
from mmcl_jax.runtime.files import read_json
from mmcl_jax.trained_model import TrainedModel
from mmcl_jax.web.packages import fetch_packages

_PAGE = pathlib.Path(__file__).with_name("page")
_INDEX, _POSES_FILE, _WORKER = "index.html", "poses.json", "offline_worker.js"
_POSES = LAYOUTS["blazepose33"]
_USUAL_RATE = 15.0  # frames a second that are looked at, if the model does not say how many it was trained on
# Files of the packages, and where the page finds them. The packed data of @mediapipe/pose are its detector.
_VENDOR = {
    "@litertjs/core/dist/index.js": "litert/core.js",
    "@litertjs/wasm-utils/dist/index.js": "litert/wasm-utils.js",
    "@litertjs/core/wasm/litert_wasm_internal.js": "litert/wasm/litert_wasm_internal.js",
    "@litertjs/core/wasm/litert_wasm_internal.wasm": "litert/wasm/litert_wasm_internal.wasm",
    "@litertjs/core/wasm/litert_wasm_compat_internal.js": "litert/wasm/litert_wasm_compat_internal.js",
    "@litertjs/core/wasm/litert_wasm_compat_internal.wasm": "litert/wasm/litert_wasm_compat_internal.wasm",
    "@mediapipe/pose/pose_landmark_full.tflite": "mediapipe/pose_landmark_full.tflite",
    "@mediapipe/pose/pose_solution_packed_assets.data": "mediapipe/pose_detection.tflite",
    "onnxruntime-web/dist/ort.wasm.bundle.min.mjs": "onnxruntime/ort.wasm.bundle.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm": "onnxruntime/ort-wasm-simd-threaded.wasm",
    "onnxruntime-web/dist/ort.webgpu.bundle.min.mjs": "onnxruntime/ort.webgpu.bundle.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.wasm": "onnxruntime/ort-wasm-simd-threaded.asyncify.wasm",
}
_IMPORT_MAP = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)
_FILES = "/*files*/"  # in the service worker


def export_web(model: TrainedModel, out: pathlib.Path, dtype: str = "float32") -> None:
    """Writes the folder `out`: the page, the model as ONNX, and the pose estimator and runtimes out of npm packages.

    Args:
      model: that sees poses of a picture, or BlazePose's in meters.
      out: a new folder.
      dtype: of the ONNX file, one of `deploy.onnx_model.DTYPES`.

    Raises: PosesError or LayoutError if the model cannot see BlazePose's poses; PackagesError, ExportError, OSError.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out}: not an empty folder; name another, or remove it")
    poses = describe_poses(model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        partial = pathlib.Path(temporary) / "page"
        export_onnx(model, partial, dtype=dtype)
        packages = fetch_packages()  # 240 MB: after all that can fail sooner
        for path in _PAGE.iterdir():
            shutil.copyfile(path, partial / path.name)
        (partial / _INDEX).write_text(_with_policy((_PAGE / _INDEX).read_text("utf-8")), encoding="utf-8")
        (partial / _POSES_FILE).write_text(json.dumps(poses) + "\n", encoding="utf-8")
        for source, target in _VENDOR.items():
            place = partial / "vendor" / target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(packages / source, place)
        files = [path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file()]
        worker = _with_files((_PAGE / _WORKER).read_text("utf-8"), ["", *sorted(files)])
        (partial / _WORKER).write_text(worker, encoding="utf-8")
        partial.replace(out)


def is_page(folder: pathlib.Path) -> bool:
    """Whether a folder is one that `export_web` wrote."""
    try:
        manifest = read_json(folder / MANIFEST)
    except (OSError, ValueError):
        return False
    ours = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    return ours and all((folder / name).is_file() for name in (_INDEX, _POSES_FILE, _WORKER))


def describe_poses(model: TrainedModel) -> dict[str, Any]:
    """`poses.json`: how the page makes a clip of the model from BlazePose's joints, as `ClipMaker` does.

    Raises: PosesError, LayoutError if the model cannot see them.
    """
    maker = ClipMaker(model, _POSES, PIXELS, (1, 1), has_world=True)
    description = model.description
    return {
        "mapping": [[[int(v), float(row[v])] for v in row.nonzero()[0]] for row in maker.mapping],
        "bones": [list(bone) for bone in _POSES.bones],
        "uses_world": maker.uses_world,
        "halves": maker.halves,
        "turn": maker.turn.tolist(),
        "confidence": maker.with_confidence,
        "frame_rate": description.frame_rate or _USUAL_RATE,
        "window_seconds": description.window_seconds or USUAL_WINDOW,
    }


def _with_policy(page: str) -> str:
    """The page with a content security policy: nothing is loaded from elsewhere, and nothing is sent anywhere."""
    found = _IMPORT_MAP.search(page)
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode("ascii")
    policy = (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; connect-src 'self'; "
        f"worker-src 'self'; script-src 'self' 'wasm-unsafe-eval' 'sha256-{digest}'"
    )
    return page.replace("<!--policy-->", f'<meta http-equiv="Content-Security-Policy" content="{policy}">')


def _with_files(worker: str, files: list[str]) -> str:
    """The service worker with the paths that it answers; "" is the page itself."""
    assert _FILES in worker
    return worker.replace(_FILES, json.dumps(files)[1:-1])
