"""What the numbers of annotations are: which joints, which coordinates, and whether they can be that."""

import dataclasses

import numpy as np

from data_prep.formats.annotations import Annotation
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.poses.files.forms import FLAT, WHOLE_BODIES
from mmcl_jax.poses.types import METRES, PIXELS, SHARES

COORDINATES = (PIXELS, SHARES, METRES)
ALIASES = {"h36m": "h36m17"}  # other names of layouts that --layout takes
_SOLID = ("ntu", "nw_ucla", "utd_mhad", "h36m17")  # sensors and estimators whose joints have three coordinates
_BLAZEPOSE = "blazepose33"
_LARGEST_SCORE = 1.5  # those of heatmaps may exceed 1 a little
_LARGEST_SHARE = 2.0  # of the picture; a joint may be outside of it
_SMALLEST_PICTURE = 32  # pixels of a side, for which such coordinates could not be pixels


@dataclasses.dataclass(frozen=True)
class Form:
    """What the numbers of an annotation are.

    Attributes:
      layout: of the joints.
      num_joints: how many of the first joints belong to it.
      coordinates: 2, in the picture, or 3, in meters.
      confidence: where the confidence is: "score" (an array of its own), "third" or "fourth" number, or "" (nowhere).
    """

    layout: str
    num_joints: int
    coordinates: int
    confidence: str

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels of the records."""
        return (*"xyz"[: self.coordinates], *(("confidence",) if self.confidence else ()))

    def confidences(self, annotation: Annotation) -> np.ndarray | None:
        """`[M, T, V]`; None if there are none."""
        if self.confidence == "score":
            return None if annotation.score is None else annotation.score[..., : self.num_joints]
        place = {"third": 2, "fourth": 3}.get(self.confidence)
        return None if place is None else annotation.keypoint[..., : self.num_joints, place]


def form_of(format: tuple[int, int, bool], layout: str | None, coordinates: str) -> Form | None:
    """What annotations of a format (joints, numbers for each, whether there are scores) are; None: unknown.

    Args:
      format: see `Annotation.format`.
      layout: a name in LAYOUTS; None: what the numbers tell.
      coordinates: one of COORDINATES.
    """
    num_joints, channels, scored = format
    if layout is None:
        if (num_joints, channels) == (25, 3):
            return Form("ntu", 25, 3, "")
        kept, layout = WHOLE_BODIES.get(num_joints, (num_joints, FLAT.get(num_joints)))
    else:
        expected = LAYOUTS[layout].num_joints
        kept, _ = WHOLE_BODIES.get(num_joints, (num_joints, None))
        kept = expected if expected in (num_joints, kept) else 0
    if layout is None or not kept or not 2 <= channels <= 4:
        return None
    if layout in _SOLID or coordinates == METRES:
        if channels == 2:
            return None if coordinates == METRES or layout == "h36m17" else Form(layout, kept, 2, "score" * scored)
        return Form(layout, kept, 3, "fourth" if channels == 4 else "")
    if channels == 2:
        return Form(layout, kept, 2, "score" * scored)
    if layout == _BLAZEPOSE:  # x, y, z of the landmarks in the picture, whose z is a guess
        return Form(layout, kept, 2, "fourth" if channels == 4 else "")
    return Form(layout, kept, 2, "third") if channels == 3 else None


def oddity(annotation: Annotation, form: Form | None, coordinates: str) -> str | None:
    """What contradicts that an annotation's numbers are what `form` says; None: nothing."""
    if form is None or form.coordinates == 3:
        return None
    keypoint = annotation.keypoint
    if form.confidence == "third":
        third = keypoint[..., 2][np.isfinite(keypoint[..., 2])]
        odd = third[(third < 0) | (third > _LARGEST_SCORE)]
        if len(odd):
            remedy = (
                "if they are Human3.6M's in meters, pass --layout h36m17"
                if form.num_joints == LAYOUTS["h36m17"].num_joints
                else "if they are in meters, pass --coordinates metres"
            )
            return f"{form.num_joints} joints whose third number is {odd[0]:g}, which is no confidence; {remedy}"
    largest = np.abs(keypoint[..., :2][np.isfinite(keypoint[..., :2])]).max(initial=0)
    picture = annotation.picture
    if coordinates == SHARES:
        if largest > _LARGEST_SHARE:
            return f"a coordinate of {largest:g}, which is no share of the picture; leave --coordinates shares out"
    elif picture is not None and min(picture) >= _SMALLEST_PICTURE and 0 < largest <= _LARGEST_SHARE:
        return (
            f"no coordinate exceeds {largest:g}, where img_shape says {picture[0]} x {picture[1]} pixels; if they are "
            "shares of the picture, pass --coordinates shares"
        )
    return None
