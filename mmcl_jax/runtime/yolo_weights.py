"""Loads YOLO weights of ultralytics, such as poses and boxes need, without running what is in the file.

A .pt file of ultralytics is a pickle of a whole model. It is loaded in ultralytics' restricted way:
`torch.load(weights_only=True)` with a list of ultralytics' and PyTorch's own layers. A file that needs anything else is
refused, and nothing in it is run. Still, use only weights from a source that you trust.
"""

import contextlib
import os
import pathlib
import tempfile
from typing import Any

from mmcl_jax.runtime.errors import MMCLError

IMAGE_SIZE = 640  # the longer side, if the weights do not store theirs


class YoloWeightsError(MMCLError):
    """A .pt file that cannot be used. The message names it and the remedy."""


def load(weights: pathlib.Path, kinds: tuple[str, ...], option: str, purpose: str) -> tuple[Any, int]:
    """The model in a .pt file, in float32 and ready for inference, and the size of the pictures that it needs.

    Args:
      weights: the file.
      kinds: names of the classes of models that serve.
      option: that names the file, for messages.
      purpose: for which ultralytics is needed, for messages.

    Raises: YoloWeightsError.
    """
    if not weights.is_file():  # ultralytics would look for it on the internet
        raise YoloWeightsError(f"{weights}: no such file; set {option} to a .pt file of ultralytics")
    # Ultralytics must not install, download or report anything.
    for variable, value in (("YOLO_AUTOINSTALL", "false"), ("YOLO_OFFLINE", "true"), ("YOLO_VERBOSE", "false")):
        os.environ.setdefault(variable, value)
    try:
        from ultralytics.nn.tasks import torch_safe_load  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise YoloWeightsError(
            f"{purpose} needs ultralytics ({error}): `make setup-yolo`, or "
            "`pip install 'mmcl_jax[yolo]'` into an environment of its own"
        ) from error
    with contextlib.ExitStack() as stack:
        # Under a name of ours: ultralytics replaces some names, such as yolov5n.pt, by others and downloads those.
        link = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weights"))) / "weights.pt"
        link.symlink_to(weights.resolve())
        try:
            checkpoint, _ = torch_safe_load(str(link), safe_only=True)
            model = checkpoint.get("ema") or checkpoint.get("model")
        except Exception as error:  # torch and ultralytics raise anything from TypeError to UnpicklingError
            reason = str(error).replace(str(link), weights.name).strip() or repr(error)
            raise YoloWeightsError(
                f"{weights}: cannot be loaded ({reason.splitlines()[0]}); set {option} to a .pt file that the "
                "package ultralytics saved (files of the older yolov5 repository have another format)"
            ) from error
    if type(model).__name__ not in kinds:
        raise YoloWeightsError(
            f"{weights}: holds a {type(model).__name__}, expected one of {', '.join(kinds)}; use other weights"
        )
    size = (checkpoint.get("train_args") or {}).get("imgsz")
    return model.float().fuse(verbose=False).eval(), size if isinstance(size, int) and size > 0 else IMAGE_SIZE
