"""Poses of one person as the clips that a model takes: its joints, channels, units and axes."""

import numpy as np

from mmcl_jax.data.layouts import LAYOUTS, Layout, joint_mapping, map_joints
from mmcl_jax.data.records import CONFIDENCE
from mmcl_jax.poses.types import METRES, PIXELS, SHARES, PosesError
from mmcl_jax.trained_model import TrainedModel


class ClipMaker:
    """Turns joints of a pose source into clips of a model.

    A model of two coordinates takes places in the picture. One of three takes meters: of a source in meters as they
    are, of a picture's poses the estimated ones, turned so that y points up and x as in a Kinect's records.

    Attributes:
      mapping: float32 `[V, V']`, how the model's joints follow from those of the poses.
      with_confidence: whether the model takes the joints' confidence.
      uses_world: whether the clip is made of the estimated meters.
      turn: int `[3]`, the factors of x, y and z where the model takes three coordinates.
      halves: whether the model takes places in halves of the picture, from its middle.
    """

    def __init__(
        self, model: TrainedModel, layout: Layout, units: str, size: tuple[int, int] | None, *, has_world: bool
    ):
        """Checks that the model can see these poses.

        Args:
          model: the model.
          layout: of the poses.
          units: of their joints, as `Poses.units`.
          size: width and height of the picture in pixels; None: unknown.
          has_world: whether there are coordinates in meters besides.

        Raises: PosesError, LayoutError, saying what the model needs.
        """
        info = model.description.info
        self.mapping = joint_mapping(layout, model.layout)
        self.with_confidence = CONFIDENCE in model.channels
        self._coordinates = info.num_coordinates
        self.uses_world = info.num_coordinates == 3 and units != METRES
        # The world of BlazePose and MediaPipe has y downwards; a Kinect's records have it upwards, x the other way.
        self.turn = np.array([-1, -1, 1] if self.uses_world or layout == LAYOUTS["blazepose33"] else [1, 1, 1])
        self.halves = self._coordinates == 2 and "hal" in info.units
        self._scale, self._shift = np.ones(2, np.float32), np.zeros(2, np.float32)
        if self._coordinates == 3:
            if self.uses_world and not has_world:
                raise PosesError(
                    f"{model.path} takes joints in three dimensions, these poses have two; use a model of 2-D "
                    "poses, or an estimator that gives meters"
                )
            return
        if units == METRES:
            raise PosesError(
                f"{model.path} takes joints in a picture, these poses are in meters; use a model of 3-D joints"
            )
        pixels = "pixel" in info.units
        if (units == SHARES and not self.halves) or (units == PIXELS and self.halves):
            if size is None:
                raise PosesError(
                    f"{model.path} takes joints in {info.units}, these poses are in {units} of a picture of unknown "
                    "size; give its width and height"
                )
        elif not (self.halves or pixels):
            raise PosesError(
                f"{model.path} takes joints in {info.units!r}, which poses in {units} cannot be turned into"
            )
        picture = np.array(size or (1, 1), np.float32)
        if self.halves:  # of the picture, from its middle
            self._scale, self._shift = (2 / picture if units == PIXELS else np.full(2, 2, np.float32)), -np.ones(2)
        elif units == SHARES:
            self._scale = picture

    def __call__(self, joints: np.ndarray, confidence: np.ndarray, world: np.ndarray | None) -> np.ndarray:
        """The clip `[T, V, C]` of a model from joints `[T, V', C']`, confidence `[T, V']` and meters `[T, V', 3]`."""
        if self.uses_world:
            assert world is not None
            joints = world
        if self._coordinates == 3:
            joints = joints * self.turn.astype(np.float32)
        elif self._coordinates == 2:
            joints = joints[..., :2] * self._scale + self._shift
        clip = map_joints(
            np.concatenate([joints, confidence[..., np.newaxis]], axis=-1), self.mapping, joints.shape[-1]
        )
        return clip if self.with_confidence else clip[..., :-1]
