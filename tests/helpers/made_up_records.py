"""Small records for the tests of reading and writing them: clips, their dataset, and one with a layout of its own."""

import io
import json

import numpy as np
from PIL import Image

from mmcl_jax.data import records
from mmcl_jax.data.layouts import Layout

TEXT_SET = "blip/holding/token_ids"
OWN_LAYOUT = Layout.from_names("hand, elbow, shoulder", "hand < elbow, elbow < shoulder", centre="shoulder")
OWN_INFO = {
    "dataset": "my_dataset",
    "layout": OWN_LAYOUT,
    "channels": ("x", "y", "confidence"),
    "protocols": {"xview": records.Protocol("camera", (2, 3))},
}


def jpeg(width=48, height=24, colour=(250, 10, 10)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(stream, "JPEG")
    return stream.getvalue()


def make_clip(number: int, **changes) -> records.Clip:
    """Clip `number`: of 3 + number frames; every third has two bodies, odd numbers an image, even ones a text."""
    rng = np.random.default_rng(number)
    fields = {
        "name": f"clip{number:02d}",
        "label": number % 3,
        "subject": number % 4 + 1,
        "camera": number % 3 + 1,
        "setup": 1,
        "replication": number,
        "skeleton": rng.normal(size=(3 + number, 2 if number % 3 == 0 else 1, 20, 3)).astype(np.float32),
        "image": jpeg() if number % 2 else None,
        "texts": {} if number % 2 else {TEXT_SET: np.arange(3, dtype=np.float32) + number},
    }
    return records.Clip(**{**fields, **changes})


def make_info(**changes) -> records.DatasetInfo:
    fields = {
        "dataset": "utd_mhad",
        "layout": "utd_mhad",
        "units": "metres",
        "class_names": ("a", "b", "c"),
        "image_source": "drawn",
        "preprocessing": "made up for a test",
    }
    return records.DatasetInfo(**{**fields, **changes})


def edit_info(folder, edit):
    """Changes the `info` part of info.json by calling `edit` on it."""
    stored = json.loads((folder / "info.json").read_text())
    edit(stored["info"])
    (folder / "info.json").write_text(json.dumps(stored))
