"""Finds persons in pictures with YOLO: detection, segmentation and pose weights of ultralytics (YOLOv5u, 8 to 12, 26).

Weights are loaded without running what is in the file, see `mmcl_jax.runtime.yolo_weights`.

Inference uses the parts of ultralytics, not its predictor, which imports torchvision's compiled operators: those in the
package index support only CUDA.
"""

import dataclasses
import functools
import hashlib
import pathlib

import numpy as np

from data_prep.formats import sources
from mmcl_jax.runtime import yolo_weights
from mmcl_jax.runtime.errors import PreparationError

DEFAULT_CONFIDENCE = 0.25
DEFAULT_BATCH_SIZE = 16
PERSON = "person"
_MODELS = ("DetectionModel", "SegmentationModel", "PoseModel")
_OVERLAP = 0.7  # two boxes that overlap more are the same person; ultralytics' default for prediction
_UNNAMED = (1, 80)  # with one class, or COCO's 80, and no names, the first class is a person


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a `Detector`.

    Attributes:
      weights: a .pt file of ultralytics.
      confidence: detections of less confidence are dropped.
      person_class: name of the person class in the weights.
      batch_size: pictures per batch.
    """

    weights: pathlib.Path
    confidence: float = DEFAULT_CONFIDENCE
    person_class: str = PERSON
    batch_size: int = DEFAULT_BATCH_SIZE

    @functools.cached_property
    def about(self) -> dict:
        """The settings that decide the boxes, as about.json stores them. Raises: PreparationError without the file."""
        try:
            with open(self.weights, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise PreparationError(f"{self.weights}: cannot be read ({error}); give a .pt file of YOLO") from error
        return {
            "boxes": "yolo",
            "weights": self.weights.name,
            "sha256": digest,
            "confidence": self.confidence,
            "person_class": self.person_class,
        }


class Detector:
    """A loaded model, on the GPU if there is one."""

    def __init__(self, settings: Settings):
        """Raises: PreparationError if the weights cannot be loaded, or have no person class."""
        try:
            model, self._image_size = yolo_weights.load(settings.weights, _MODELS, "--yolo_weights", "--boxes yolo")
        except yolo_weights.YoloWeightsError as error:
            raise PreparationError(str(error)) from error
        import torch

        self.settings = settings
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._class_ids = _person_classes(settings, model.names)
        self._num_classes = len(model.names)
        self._stride = max(32, int(model.stride.max()))
        self._model = model.to(self.device)

    def detect(self, pictures: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Finds the persons in pictures of one size, uint8 RGB [H, W, 3].

        Returns: for each picture its boxes, float32 [n, 4] (left, top, right, bottom in pixels), and confidences [n].
        Raises: PreparationError if the memory is too small.
        """
        import torch
        from ultralytics.data.augment import LetterBox

        letter_box = LetterBox(self._image_size, auto=True, stride=self._stride)
        boxed = np.stack([letter_box(image=picture) for picture in pictures])
        with sources.clear_memory_errors(f"{len(pictures)} pictures", "--yolo_batch"), torch.inference_mode():
            return self._persons(torch.from_numpy(boxed), pictures[0].shape)

    def _persons(self, boxed, shape: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
        """As `detect`, for pictures of `shape` that were scaled to the model's size: a tensor, uint8 [N, H, W, 3]."""
        from ultralytics.utils import nms, ops

        batch = boxed.to(self.device).permute(0, 3, 1, 2).float() / 255
        output = self._model(batch)
        while isinstance(output, list | tuple):  # boxes and scores come first, then prototypes of masks and others
            output = output[0]
        found = nms.non_max_suppression(
            output,
            self.settings.confidence,
            _OVERLAP,
            classes=self._class_ids,
            nc=self._num_classes,
            end2end=self._model.end2end,
            max_time_img=float("inf"),  # otherwise a slow machine leaves pictures out
        )
        boxes = (ops.scale_boxes(batch.shape[2:], rows[:, :4], shape) for rows in found)
        return [(each.cpu().numpy(), rows[:, 4].cpu().numpy()) for each, rows in zip(boxes, found, strict=True)]


def _person_classes(settings: Settings, names) -> list[int]:
    """The numbers of the person classes. Raises: PreparationError if there are none."""
    numbered = names.items() if isinstance(names, dict) else enumerate(names)
    names = {int(number): str(name) for number, name in numbered}
    classes = [number for number, name in names.items() if name.strip().lower() == settings.person_class.lower()]
    unnamed = all(name == str(number) for number, name in names.items())
    if not classes and unnamed and len(names) in _UNNAMED and settings.person_class == PERSON:
        return [0]
    if not classes:
        listed = ", ".join(list(names.values())[:10]) + (", ..." if len(names) > 10 else "")
        raise PreparationError(
            f"{settings.weights}: no class {settings.person_class!r} among its {len(names)} ({listed}); use weights "
            "that detect persons, or set --yolo_person to the name of their class"
        )
    return classes
