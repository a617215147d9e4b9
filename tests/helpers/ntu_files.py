"""Made-up `.skeleton` files and videos for tests."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from tests.helpers.golden import golden_folder

REAL_CLIP = "S001C001P001R001A001"  # beside the reference outputs
FIRST_ID = 72057594037931101  # beyond 2^53: the next id is the same float64


def make_joints(rng: np.random.Generator, num_frames: int, width: float = 0.5, motion: float = 0.1) -> np.ndarray:
    """float32 [n, 25, 3]: a person of 1.7 m, 3 m away, who sways."""
    still = rng.uniform((-width / 2, -0.9, 2.9), (width / 2, 0.8, 3.1), size=(25, 3))
    still[0], still[1], still[2] = (0, 0, 3), (0, 0.8, 3), (0, -0.9, 3)
    path = np.cumsum(rng.normal(scale=motion, size=(num_frames, 1, 3)), axis=0)
    return (still + path * (1, 0.1, 1) + rng.normal(scale=0.01, size=(num_frames, 25, 3))).astype(np.float32)


def colors_of(joints: np.ndarray) -> np.ndarray:
    """float32 [..., 2]: where a camera of 1920 x 1080 at the origin sees joints [..., 3]."""
    x, y, z = np.moveaxis(joints, -1, 0)
    focal_length = 1060 / np.where(z > 0, z, np.nan)
    return np.stack([960 + x * focal_length, 540 - y * focal_length], axis=-1).astype(np.float32)


def to_text(frames: list[list[tuple[int, np.ndarray]]], newline: str = "\n") -> str:
    """A `.skeleton` file: for each frame, its bodies as (id, joints [25, 3])."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for name, joints in bodies:
            lines += [f"{name} 0 1 1 1 1 0 0.02764709 0.05745083 2", "25"]
            for row in np.concatenate([joints, colors_of(joints)], axis=1).tolist():
                x, y, z, column, line = (f"{number:.7g}" for number in row)
                lines.append(f"{x} {y} {z} 277.419 191.8218 {column} {line} -0.2059 0.0535 0.96921 -0.12392 2")
    return newline.join(lines) + newline


def one_person(num_frames: int = 20, seed: int = 0) -> str:
    joints = make_joints(np.random.default_rng(seed), num_frames, motion=0.02)
    return to_text([[(FIRST_ID, frame)] for frame in joints])


def two_persons(num_frames: int = 20) -> str:
    rng = np.random.default_rng(1)
    first, second = make_joints(rng, num_frames, motion=0.02), make_joints(rng, num_frames, motion=0.01)
    second = second + np.float32((1.2, 0, 0))
    return to_text([[(FIRST_ID, a), (FIRST_ID + 1, b)] for a, b in zip(first, second, strict=True)])


def random_clip(rng: np.random.Generator) -> str:
    """Several bodies that come and go, in any order, some short, some wide, some alike; frames without anybody."""
    num_frames = int(rng.integers(12, 40))
    frames: list[list] = [[] for _ in range(num_frames)]
    shared = make_joints(rng, num_frames)
    for number in range(int(rng.integers(1, 6))):
        body = FIRST_ID + int(rng.integers(4)) if rng.random() < 0.15 else FIRST_ID + 10 + number
        start = 0 if rng.random() < 0.4 else int(rng.integers(num_frames))
        end = num_frames if rng.random() < 0.5 else min(num_frames, start + int(rng.integers(1, 40)))
        kind = rng.random()
        if kind < 0.3:  # the same motion, elsewhere: rounding decides who moves more
            joints = shared + np.float32(rng.uniform(-1, 1, 3))
        else:
            width = rng.choice([0.5, 1.3, 1.36, 1.4, 2.5])
            joints = make_joints(rng, num_frames, width, rng.choice([0.0, 0.01, 0.1]))
            widen = rng.random(num_frames) < rng.choice([0.0, 0.5, 0.69, 0.72, 1.0])
            joints[widen, :, 0] *= np.float32(4)
        lost = rng.random(num_frames) < rng.choice([0.0, 0.0, 0.1, 0.5])
        nothing = rng.random(num_frames) < rng.choice([0.0, 0.0, 0.1])
        joints[nothing] = 0
        switch = int(rng.integers(num_frames)) if rng.random() < 0.3 else num_frames  # lost, found under another id
        for frame in range(start, end):
            if not lost[frame]:
                frames[frame].append((body if frame < switch else body + 50, joints[frame]))
    for bodies in frames:
        rng.shuffle(bodies)
    for frame in np.flatnonzero(rng.random(num_frames) < rng.choice([0.0, 0.1])):
        frames[frame] = []
    return to_text(frames, newline=str(rng.choice(["\n", "\r\n"])))


def mutate(rng: np.random.Generator, contents: bytes) -> bytes:
    """A damaged copy of a file, in one of many ways."""
    lines = contents.split(b"\n")
    place = int(rng.integers(len(lines) - 1))
    kind = int(rng.integers(14))
    if kind == 0:
        return contents[: int(rng.integers(len(contents)))]
    if kind == 1:
        return b"\n".join(lines[:place])
    if kind == 2:
        some = [int(row) for row in rng.integers(len(lines), size=6)]
        for row, other in zip(some[::2], some[1::2], strict=True):
            lines[row], lines[other] = lines[other], lines[row]
    elif kind == 3:
        rng.shuffle(lines)
    elif kind == 4:
        del lines[place]
    elif kind == 5:
        lines.insert(place, lines[int(rng.integers(len(lines)))])
    elif kind == 6:
        lines[0] = str(rng.choice([0, -1, 1, 5, 10**6, 10**30, 2.5])).encode()
    elif kind == 7:
        counts = [row for row, line in enumerate(lines) if line.strip().isdigit() and row]
        lines[int(rng.choice(counts))] = str(rng.choice([0, -1, 2, 24, 26, 10**9, 10**40])).encode()
    elif kind == 8:
        value = str(
            rng.choice(["nan", "inf", "-inf", "1e39", "", "x", "1,5", "--1", "1.2.3", "1e-5", "0x1", "-1.#IND"])
        )
        words = lines[place].split()
        if words:
            words[int(rng.integers(len(words)))] = value.encode()
        lines[place] = b" ".join(words)
    elif kind == 9:
        return rng.bytes(int(rng.integers(3000)))
    elif kind == 10:
        spoiled = bytearray(contents)
        for at in rng.integers(len(spoiled), size=int(rng.integers(1, 20))):
            spoiled[at] = int(rng.integers(256))
        return bytes(spoiled)
    elif kind == 11:
        return bytes(rng.choice([b"", b"\n", b"0\n", b"0", b" ", b"\x00" * 100, b"3\n0\n0\n0\n", b"PK\x03\x04"]))
    elif kind == 12:
        start = int(rng.integers(len(contents)))
        return contents[:start] + bytes(int(rng.integers(1, 500))) + contents[start:]
    else:
        lines[place] = b" ".join(lines[place].split()[: int(rng.integers(12))])
    return b"\n".join(lines)


def damaged_files(number: int) -> Iterator[bytes]:
    """Damaged copies of some files; each depends only on its seed."""
    texts = [one_person(13), two_persons(14), random_clip(np.random.default_rng(3))]
    if "MMCL_TEST_DATA" in os.environ:
        texts.append((golden_folder() / "ntu_raw" / f"{REAL_CLIP}.skeleton").read_text())
    for seed in range(number):
        yield mutate(np.random.default_rng(seed), texts[seed % len(texts)].encode())


def write_video(path: pathlib.Path, num_frames: int, size=(1080, 1920), rectangles=None) -> None:
    """An AVI as the dataset's (MPEG-4, a key frame every twelve); frame n has gray 2 n, `rectangles` [n] are red."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height, stream.width = size
        stream.pix_fmt, stream.gop_size, stream.bit_rate = "yuv420p", 12, 20_000_000
        for number in range(num_frames):
            picture = np.full((*size, 3), 2 * number, np.uint8)
            if rectangles is not None:
                left, top, right, bottom = rectangles[number]
                picture[top:bottom, left:right] = (230, 20, 20)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def rectangles(num_frames: int, seed: int = 0) -> list[tuple[int, int, int, int]]:
    """Where `one_person` stands in the picture."""
    pixels = colors_of(make_joints(np.random.default_rng(seed), num_frames, motion=0.02))
    low, high = pixels.min(axis=1).astype(int), pixels.max(axis=1).astype(int)
    return [(*a.tolist(), *b.tolist()) for a, b in zip(low, high, strict=True)]
