"""YOLO-pose: the joints of each person in a picture, with weights of ultralytics that the user supplies.

It needs the extra `yolo` in an environment of its own (`make setup-yolo`). It uses the parts of ultralytics, not its
predictor, which imports torchvision's compiled operators.
"""

import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.poses import tracker
from mmcl_jax.poses.stages import Stages
from mmcl_jax.poses.tracker import MOST_PERSONS, Candidate, Tracker
from mmcl_jax.poses.types import FramePoses, Person, PosesError
from mmcl_jax.poses.video import Frame
from mmcl_jax.runtime import yolo_weights

SUFFIX = ".pt"
_LEAST_CONFIDENCE = 0.25  # of a person
_OVERLAP = 0.7  # two boxes that overlap more are the same person; ultralytics' default for prediction
_TRUNK = ("left shoulder", "right shoulder", "left hip", "right hip")
_LAYOUTS = {LAYOUTS[name].num_joints: name for name in ("coco", "body13", "openpose18", "halpe26", "blazepose33")}


class YoloPose:
    """Finds the persons in pictures with a pose model of ultralytics, and follows them.

    Attributes:
      layout: of the joints, which their number tells: 17 are COCO's.
      stages: seconds of `poses`.
    """

    has_world = False

    def __init__(
        self,
        weights: str | os.PathLike,
        *,
        most_persons: int = MOST_PERSONS,
        least_confidence: float = _LEAST_CONFIDENCE,
        stages: Stages | None = None,
    ):
        """Loads the weights, to the GPU if there is one.

        Args:
          weights: a .pt file of a pose model.
          most_persons: that are followed at a time.
          least_confidence: detections of less are dropped.
          stages: takes the times; None: a new one.

        Raises: PosesError if the weights cannot be loaded or give no known joints.
        """
        path = pathlib.Path(weights)
        try:
            model, self._image_size = yolo_weights.load(path, ("PoseModel",), "--pose_model", "YOLO-pose")
        except yolo_weights.YoloWeightsError as error:
            raise PosesError(str(error)) from error
        num_joints, self._numbers = (int(side) for side in model.kpt_shape)
        if num_joints not in _LAYOUTS or self._numbers not in (2, 3):
            raise PosesError(
                f"{path}: a model of {num_joints} joints, expected one of {', '.join(map(str, sorted(_LAYOUTS)))}"
            )
        import torch

        self.layout, self.stages = _LAYOUTS[num_joints], stages or Stages()
        names = LAYOUTS[self.layout].joints
        left, right, left_hip, right_hip = (names.index(name) for name in _TRUNK)
        self._trunk = (left, right, left_hip, right_hip)
        self._most, self._least_confidence = most_persons, least_confidence
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._stride = max(32, int(model.stride.max()))
        self._model = model.to(self._device)

    def track(self, frames: Iterable[Frame], frame_rate: float) -> Iterator[FramePoses]:
        """Yields the persons of each frame.

        Args:
          frames: in order. A frame with the same array as the one before it is not estimated again.
          frame_rate: frames a second.
        """
        following = Tracker(frame_rate, most=self._most)
        picture, persons = None, ()
        for frame in frames:
            if frame.picture is not picture:
                picture = frame.picture
                persons = self._persons(frame, following)
            yield FramePoses(frame.number, frame.time, persons, frame.picture)

    def _persons(self, frame: Frame, following: Tracker) -> tuple[Person, ...]:
        joints, confidence = self.look(frame.picture)
        candidates = [
            Candidate(each, sure, tracker.colours(frame.picture, each, self._trunk))
            for each, sure in zip(joints, confidence, strict=True)
        ]
        numbers = following.update(frame.number, candidates)
        found = zip(numbers, joints, confidence, strict=True)
        persons = [Person(number, each, sure) for number, each, sure in found if number is not None]
        return tuple(sorted(persons, key=lambda person: person.number))

    def look(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The persons in a picture, the surest first.

        Args:
          picture: uint8 RGB `[H, W, 3]`.

        Returns: joints float32 `[n, V, 2]` in pixels and their confidence float32 `[n, V]`.
        """
        import torch
        from ultralytics.data.augment import LetterBox  # pyright: ignore[reportMissingImports]
        from ultralytics.utils import nms, ops  # pyright: ignore[reportMissingImports]

        with self.stages("poses"), torch.inference_mode():
            boxed = LetterBox(self._image_size, auto=True, stride=self._stride)(image=picture)
            batch = torch.from_numpy(boxed).to(self._device).permute(2, 0, 1)[None].float() / 255
            output = self._model(batch)
            while isinstance(output, list | tuple):
                output = output[0]
            (rows,) = nms.non_max_suppression(
                output,
                self._least_confidence,
                _OVERLAP,
                nc=len(self._model.names),
                end2end=self._model.end2end,
                max_time_img=float("inf"),  # otherwise a slow machine leaves persons out
            )
            points = rows[:, 6:].reshape(len(rows), -1, self._numbers)
            points = ops.scale_coords(batch.shape[2:], points, picture.shape).cpu().numpy()
        confidence = points[..., 2] if self._numbers == 3 else np.ones(points.shape[:2], np.float32)
        return np.ascontiguousarray(points[..., :2]), np.clip(confidence, 0, 1)
