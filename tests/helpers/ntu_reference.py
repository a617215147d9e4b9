"""What the published preprocessing of NTU RGB+D computes, the slow and plain way: the oracle of `ntu_skeletons`.

It raises the errors that the published scripts would raise.
"""

import numpy as np

from experiments.line_by_line import read_bodies


def preprocess(path) -> tuple[np.ndarray, np.ndarray]:
    """The arrays (T, 75) or (T, 150) after denoising and after translation."""
    bodies, total = read_bodies(path)
    if len(bodies) == 1:
        (body,) = bodies.values()
        denoised = np.zeros((total, 75), np.float32)
        put(denoised, 0, body)
    else:
        denoised = choose_actors(bodies, total)
        denoised = denoised[[frame for frame in range(len(denoised)) if denoised[frame].sum() != 0]]
    return denoised, translate(denoised)


def flat(joints: np.ndarray) -> np.ndarray:
    """[T, M, 25, 3] -> [T, 75 M], the published layout."""
    return joints.reshape(len(joints), -1)


def put(array: np.ndarray, column: int, body: dict) -> None:
    first, last = body["frames"][0], body["frames"][-1]
    array[first : last + 1, column : column + 75] = body["joints"].reshape(-1, 75)


def variance(joints: np.ndarray) -> np.float32:
    return np.sum(np.var(joints.reshape(-1, 3), axis=0))


def choose_actors(bodies: dict[str, dict], total: int) -> np.ndarray:
    for body in bodies.values():
        body["motion"] = variance(body["joints"])
    for name in list(bodies):
        if len(bodies[name]["frames"]) <= 11:
            del bodies[name]
    if len(bodies) != 1:
        drop_wide(bodies)
    if len(bodies) == 1:
        denoised = np.zeros((total, 75), np.float32)
        put(denoised, 0, next(iter(bodies.values())))
        return denoised
    ranked = sorted(bodies.values(), key=lambda body: body["motion"], reverse=True)
    denoised = np.zeros((total, 150), np.float32)
    put(denoised, 0, ranked[0])
    start1, end1 = ranked[0]["frames"][0], ranked[0]["frames"][-1]
    start2 = end2 = 0
    for body in ranked[1:]:
        start, end = body["frames"][0], body["frames"][-1]
        if min(end1, end) - max(start1, start) <= 0:
            put(denoised, 0, body)
            start1, end1 = min(start1, start), max(end1, end)
        elif min(end2, end) - max(start2, start) <= 0:
            put(denoised, 75, body)
            start2, end2 = min(start2, start), max(end2, end)
    return denoised


def drop_wide(bodies: dict[str, dict]) -> None:
    for name in list(bodies):
        if len(bodies) == 1:
            return
        body = bodies[name]
        frames = body["joints"].reshape(-1, 25, 3)
        slim = []
        for number, frame in enumerate(frames):
            x, y = frame[:, 0].astype(float), frame[:, 1].astype(float)
            if np.float32(x.max() - x.min()) <= 0.8 * float(np.float32(y.max() - y.min())):
                slim.append(number)
        wide = len(frames) - len(slim)
        if wide == 0:
            continue
        if wide / len(frames) >= 0.69754:
            del bodies[name]
        else:
            body["motion"] = min(body["motion"], variance(frames[slim]))


def translate(denoised: np.ndarray) -> np.ndarray:
    moved = denoised.copy()
    two = denoised.shape[1] == 150
    lost = [
        [frame for frame in range(len(denoised)) if denoised[frame, column : column + 75].sum() == 0]
        for column in ((0, 75) if two else ())
    ]
    first = 0
    while not np.any(denoised[first, :75] != 0):
        first += 1
    origin = denoised[first, 3:6].copy()
    for frame in range(len(moved)):
        moved[frame] -= np.tile(origin, 50 if two else 25)
    for actor, frames in enumerate(lost):
        for frame in frames:
            moved[frame, 75 * actor : 75 * actor + 75] = 0
    return moved
