"""Poses, frame by frame, as an estimator would have given them."""

from collections.abc import Iterator

import numpy as np

from mmcl_jax.poses.types import FramePoses, Person, Poses

USUAL_FRAME_RATE = 30.0  # of poses that do not state theirs
_NO_PICTURE = np.zeros((0, 0, 3), np.uint8)


def frames_of(poses: Poses) -> Iterator[FramePoses]:
    """The persons of each frame, without pictures."""
    rate = poses.frame_rate or USUAL_FRAME_RATE
    by_frame: dict[int, list[Person]] = {}
    for track in poses.tracks:
        for place, frame in enumerate(track.frames.tolist()):
            world = None if track.world is None else track.world[place]
            person = Person(track.person, track.joints[place], track.confidence[place], world)
            by_frame.setdefault(frame, []).append(person)
    for number in range(poses.num_frames):
        yield FramePoses(number, number / rate, tuple(by_frame.get(number, ())), _NO_PICTURE)
