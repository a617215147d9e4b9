"""Reads a `.skeleton` file line by line as the published scripts do: the baseline for our reader's speed.

The tests use it too, as a part of their reference (`tests/helpers/ntu_reference.py`). On a bad file it raises what the
published scripts would raise.
"""

import numpy as np


def read_bodies(path) -> tuple[dict[str, dict], int]:
    """Bodies by id, each with joints (25 n, 3), colors (n, 25, 2) and its frames; and the number of frames kept."""
    with open(path) as file:
        lines = file.readlines()
    total, place, kept = int(lines[0].strip("\r\n")), 1, 0
    bodies: dict[str, dict] = {}
    for _ in range(total):
        count = int(lines[place].strip("\r\n"))
        place += 1
        if count == 0:
            continue
        joints = np.zeros((count, 25, 3), np.float32)
        colors = np.zeros((count, 25, 2), np.float32)
        for number in range(count):
            name = lines[place].strip("\r\n").split()[0]
            num_joints = int(lines[place + 1].strip("\r\n"))
            place += 2
            for joint in range(num_joints):
                words = lines[place].strip("\r\n").split()
                joints[number, joint] = np.array(words[:3], dtype=np.float32)
                colors[number, joint] = np.array(words[5:7], dtype=np.float32)
                place += 1
            if name in bodies:
                body = bodies[name]
                body["joints"] = np.vstack((body["joints"], joints[number]))
                body["colors"] = np.vstack((body["colors"], colors[number, np.newaxis]))
                body["frames"].append(body["frames"][-1] + 1)
            else:
                bodies[name] = {"joints": joints[number], "colors": colors[number, np.newaxis], "frames": [kept]}
        kept += 1
    if not kept:
        raise ValueError("nobody anywhere")
    return bodies, kept
