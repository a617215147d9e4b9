"""One web page for what was recognized: moving skeletons beside the probabilities over time. It loads nothing."""

import pathlib
from collections.abc import Sequence

import numpy as np

from mmcl_jax.poses.types import METRES, SHARES, Poses
from mmcl_jax.recognition.drawing import COLORS
from mmcl_jax.recognition.events import Event
from mmcl_jax.recognition.frames import USUAL_FRAME_RATE
from mmcl_jax.recognition.recognizer import merge
from mmcl_jax.viewers import html_page

COMMAND = "mmcl_jax.predict"
_SCRIPT, _STYLE = (pathlib.Path(__file__).with_name(f"page.{kind}") for kind in ("js", "css"))
_ACTIONS = 5  # curves a person
_MOST_FRAMES = 6000
_STEPS = 1000  # over the longer side of what is shown


def write_page(
    out: pathlib.Path, poses: Poses, events: Sequence[Event], class_names: Sequence[str], threshold: float
) -> None:
    """Writes the page. Raises: PreparationError if `out` is another file or cannot be written."""
    html_page.check_replaceable(out, COMMAND)
    data = page_data(poses, events, class_names, threshold)
    page = html_page.fill(
        COMMAND, f"{data['name']}: actions", data, [html_page.SCRIPT, _SCRIPT], [html_page.STYLE, _STYLE]
    )
    html_page.write(out, page)


def page_data(poses: Poses, events: Sequence[Event], class_names: Sequence[str], threshold: float) -> dict:
    """What the page's script draws."""
    rate = poses.frame_rate or USUAL_FRAME_RATE
    every = -(-poses.num_frames // _MOST_FRAMES)
    wholes = {event.person: event for event in events if event.whole}
    windows = merge(events)
    low, high = _bounds(poses)
    step = max(float((high - low).max()), 1e-9) / _STEPS
    people = []
    for person, own in windows.items():
        mean = np.mean([event.probabilities for event in own], axis=0)
        peak = np.max([event.probabilities for event in own], axis=0)
        shown = np.argsort(-(mean + 0.5 * peak), kind="stable")[:_ACTIONS].tolist()
        people.append(
            {
                "person": person,
                "color": "rgb({},{},{})".format(*COLORS[person % len(COLORS)]),
                "whole": None if person not in wholes else [list(pair) for pair in wholes[person].top],
                "actions": [class_names[label] for label in shown],
                "windows": [
                    {
                        "start": round(event.start, 3),
                        "end": round(event.end, 3),
                        "top": event.top[0][0],
                        "share": round(event.top[0][1], 4),
                        "values": [round(float(event.probabilities[label]), 4) for label in shown],
                    }
                    for event in own
                ],
                **_track(poses, person, every, low, step),
            }
        )
    return {
        "name": pathlib.Path(poses.source).name or "poses",
        "seconds": poses.num_frames / rate,
        "rate": rate / every,
        "frames": -(-poses.num_frames // every),
        "extent": np.ceil((high - low) / step).astype(int).tolist(),
        "bones": [list(bone) for bone in poses.skeleton_layout.bones],
        "threshold": threshold,
        "people": people,
    }


def _places(poses: Poses, joints: np.ndarray) -> np.ndarray:
    """x and y as on a picture, y downwards."""
    places = joints[..., :2].astype(np.float64)
    if poses.units == METRES:
        return places * np.array([1, -1])
    if poses.units == SHARES and poses.size is not None:
        return places * np.array(poses.size)
    return places


def _bounds(poses: Poses) -> tuple[np.ndarray, np.ndarray]:
    """What is shown: the whole picture or, without one, everything within which the joints are."""
    if poses.size is not None and poses.units != METRES:
        return np.zeros(2), np.array(poses.size, np.float64)
    seen = [_places(poses, track.joints)[track.confidence > 0] for track in poses.tracks]
    points = np.concatenate(seen) if seen else np.zeros((1, 2))
    low, high = np.percentile(points, (0.5, 99.5), axis=0)
    margin = 0.1 * max(float((high - low).max()), 1e-6)
    return low - margin, high + margin


def _track(poses: Poses, person: int, every: int, low: np.ndarray, step: float) -> dict:
    """Frame numbers, and of each the joints as whole steps; a joint that is not seen is null."""
    track = poses.track(person)
    kept = np.flatnonzero(track.frames % every == 0)
    steps = np.rint((_places(poses, track.joints[kept]) - low) / step).clip(-_STEPS, 2 * _STEPS).astype(int)
    sure = track.confidence[kept] > 0.2
    joints = [
        [place if seen else None for place, seen in zip(frame.tolist(), flags.tolist(), strict=True)]
        for frame, flags in zip(steps, sure, strict=True)
    ]
    return {"frames": (track.frames[kept] // every).tolist(), "joints": joints}
