"""The embedded default dataset, computed in seconds: clips of an articulated figure -> records with mosaics and text.

    python -m data_prep.synthetic --out DIR [--seed 0] [--subjects 10] [--overwrite]

Twelve actions by ten subjects before three cameras, each twice, in NTU RGB+D's layout. Two actions have two people.
Drinking and a phone call, brushing teeth and eating, writing and typing differ by the object and by a small motion of
the hand. The object is drawn at random, so that it hints at the action without giving it away. Subjects 1, 2, 3, 5, 6,
8 and 9 train, the others test.

The text feature is a noisy stand-in for the answer of a visual question answering model to "is the person holding
something?". It is a function of the object in the clip and of a noise that is shared by all actions of a recording
(subject, camera, replication): given the object, nothing about the label is in it.

Every clip is a pure function of the seed and its own fields, whatever else is generated and in however many processes.
"""

import argparse
import dataclasses
import functools
import itertools
import zlib
from collections.abc import Iterator

import numpy as np

from data_prep.formats import sources
from data_prep.images import person_crops
from data_prep.scenes import actions, drawing, figure
from data_prep.scenes.figure import apply, turn, vectors
from mmcl_jax.data import records
from mmcl_jax.runtime.errors import plain_errors

SUBJECTS, CAMERAS, REPLICATIONS = 10, 3, 2
SETUP = 1
FRAME_RATE = 30.0
TEXT_SET = "stand_in/holding/token_ids"
# Ids of BERT's vocabulary as BLIP's question answering emits them: [decode], the answer, [sep].
DECODE, YES, NO, SEPARATOR = 30522, 2748, 2053, 102
FLIPPED_ANSWERS = 0.1
_FRAMES = (30, 90)
_CAMERA_ANGLES = np.deg2rad((-45.0, 0.0, 45.0))
_INFO = records.DatasetInfo(
    dataset="synthetic",
    layout="ntu",
    units="metres",
    class_names=tuple(action.name for action in actions.ACTIONS),
    image_source="drawn",
    preprocessing="computed, sensor noise 3 to 8 mm; origin at joint 2 of body 1 in the first frame, as in NTU",
)


@dataclasses.dataclass(frozen=True)
class ClipFields:
    """What names a clip; numbers count from 1, as in NTU RGB+D."""

    action: int
    subject: int
    camera: int
    replication: int

    @property
    def name(self) -> str:
        return f"A{self.action:03d}S{self.subject:02d}C{self.camera}R{self.replication}"


@dataclasses.dataclass(frozen=True)
class Subject:
    """What belongs to a person in all clips: body, looks, habits (tempo and vigour are about 1)."""

    body: figure.Body
    clothes: drawing.Clothes
    tempo: float
    vigour: float
    left_handed: bool


def generator(seed: int, stream: str, *fields: int) -> np.random.Generator:
    """The random numbers of one purpose (`stream`) in one place (`fields`)."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *fields]))


def sample_subject(rng: np.random.Generator) -> Subject:
    """Draws a person."""
    return Subject(
        body=figure.sample_body(rng),
        clothes=drawing.sample_clothes(rng),
        tempo=rng.uniform(0.85, 1.2),
        vigour=rng.uniform(0.85, 1.15),
        left_handed=bool(rng.random() < 0.2),
    )


def holding_answer(item: str, noise: np.random.Generator) -> np.ndarray:
    """The noisy stand-in for the VQA answer to "is the person holding something?": float32 [3] token ids.

    Args:
      item: key of `actions.OBJECTS`; all that is known of the clip.
      noise: decides whether the answer is wrong, in a tenth of the cases.
    """
    wrong = noise.random() < FLIPPED_ANSWERS
    return np.array([DECODE, YES if actions.OBJECTS[item] != wrong else NO, SEPARATOR], dtype=np.float32)


def answer_noise(seed: int, fields: ClipFields) -> np.random.Generator:
    """The noise of a recording's answers. The action is left out: the same for all of them, it cannot point to one."""
    return generator(seed, "answer", fields.subject, fields.camera, SETUP, fields.replication)


@dataclasses.dataclass(frozen=True)
class Performance:
    """A scene and who is in it, before a camera sees it."""

    scene: actions.Scene
    clothes: list[drawing.Clothes]
    item: str
    mirrored: bool


def perform(seed: int, fields: ClipFields) -> Performance:
    """Plays the action of a clip: a function of the seed and the clip's fields."""
    action = actions.ACTIONS[fields.action - 1]
    subject = sample_subject(generator(seed, "subject", fields.subject))
    rng = generator(seed, "take", fields.action, fields.subject, fields.camera, fields.replication)
    partner = sample_subject(rng)
    item = _item(rng, action)
    duration = action.seconds * rng.uniform(0.85, 1.2)
    num_frames = int(np.clip(round(FRAME_RATE * duration / subject.tempo), *_FRAMES))
    take = actions.Take(
        rng=rng,
        seconds=np.arange(num_frames) * (duration / (num_frames - 1)),
        bodies=(subject.body, partner.body),
        vigour=subject.vigour * rng.uniform(0.93, 1.07),
        item=item,
    )
    mirrored = subject.left_handed != (rng.random() < 0.08)
    return Performance(action.perform(take), [subject.clothes, partner.clothes], item, mirrored)


def _item(rng: np.random.Generator, action: actions.Action) -> str:
    """Draws the object of a take."""
    return str(rng.choice(list(action.items), p=list(action.items.values())))


def make_clip(seed: int, fields: ClipFields) -> records.Clip:
    """One complete clip: skeleton float32 (T, M, 25, 3) in metres, JPEG mosaic of 480x480, text feature."""
    performance = perform(seed, fields)
    scene = performance.scene
    rng = generator(seed, "camera", fields.action, fields.subject, fields.camera, fields.replication)
    camera = _Camera.sample(rng, scene, fields, performance.mirrored)
    people = [
        drawing.Person(camera.points(person.joints), camera.points(drawing.head_marks(person)), clothes)
        for person, clothes in zip(scene.figures, performance.clothes, strict=False)
    ]
    if performance.mirrored:  # the mirror image of a left hand is a right hand
        people = [dataclasses.replace(person, joints=person.joints[:, figure.MIRRORED]) for person in people]
    things = [
        drawing.Thing(prop.kind, camera.points(prop.place), camera.directions(_axes(prop.direction)))
        for prop in scene.props
    ]
    crops = drawing.draw_crops(people, things, fields.camera, camera.floor)
    skeleton = np.stack([person.joints for person in people], axis=1)
    skeleton = skeleton + _sensor_noise(rng, skeleton.shape)
    skeleton = skeleton - skeleton[:1, :1, figure.SPINE_MID : figure.SPINE_MID + 1]
    return records.Clip(
        name=fields.name,
        label=fields.action - 1,
        subject=fields.subject,
        camera=fields.camera,
        setup=SETUP,
        replication=fields.replication,
        skeleton=skeleton.astype(np.float32),
        image=person_crops.encode_jpeg(person_crops.mosaic(crops)),
        texts={TEXT_SET: holding_answer(performance.item, answer_noise(seed, fields))},
    )


def all_fields(subjects: int) -> list[ClipFields]:
    """The clips of the first `subjects` subjects, in the order of the records."""
    counts = (len(actions.ACTIONS), subjects, CAMERAS, REPLICATIONS)
    return [ClipFields(*numbers) for numbers in itertools.product(*(range(1, count + 1) for count in counts))]


def make_clips(seed: int, subjects: int) -> Iterator[records.Clip]:
    """All clips, in the order of `all_fields`, made by as many processes as there are cores."""
    workers = min(8, sources.usable_cores())
    yield from sources.map_in_order(functools.partial(make_clip, seed), all_fields(subjects), workers)


@dataclasses.dataclass(frozen=True)
class _Camera:
    """A view: takes a scene's coordinates to the camera's (x to the right of the mirrored picture, y up, z away)."""

    rotation: np.ndarray
    mirror: np.ndarray
    centre: np.ndarray
    offset: np.ndarray

    @classmethod
    def sample(cls, rng: np.random.Generator, scene: actions.Scene, fields: ClipFields, mirrored: bool) -> "_Camera":
        """Puts the camera of `fields` before a scene, 2.5 to 4 metres away, a little differently for every clip."""
        heading = actions.ACTIONS[fields.action - 1].heading + rng.uniform(-0.2, 0.2)
        middle = np.mean([person.joints[:, figure.SPINE_BASE].mean(axis=0) for person in scene.figures], axis=0)
        near = 3.0 if len(scene.figures) == 2 else 2.5
        offset = vectors(rng.uniform(-0.3, 0.3), -rng.uniform(1.1, 1.4), rng.uniform(near, 4.0))
        # Half a turn, so that z leads away from the camera and those who face it look against z.
        rotation = turn(yaw=np.pi + heading - _CAMERA_ANGLES[fields.camera - 1])
        return cls(rotation, vectors(-1 if mirrored else 1, 1, 1), middle * (1, 0, 1), offset)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Places [..., 3], metres."""
        return self.directions(points - self.centre) + self.offset

    def directions(self, directions: np.ndarray) -> np.ndarray:
        """Directions [..., 3]."""
        return apply(self.rotation, directions * self.mirror)

    @property
    def floor(self) -> float:
        """y of the floor, metres."""
        return float(self.offset[1])


def _axes(direction: np.ndarray) -> np.ndarray:
    """Rows of a frame [T, 3, 3] from a direction [T, 3]: itself, up, and level to its side."""
    upward = np.broadcast_to(vectors(0, 1, 0), direction.shape)
    return np.stack([direction, upward, np.cross(upward, direction)], axis=1)


def _sensor_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Jitter of a tracked skeleton (T, M, V, C), metres; half of it lasts from frame to frame, fingers have more."""
    spread = np.full((shape[2], 1), rng.uniform(0.003, 0.006))
    spread[[figure.FOOT_LEFT, figure.FOOT_RIGHT, *figure.ARMS["left"][4:], *figure.ARMS["right"][4:]]] *= 1.3
    fresh = rng.normal(size=shape)
    noise = np.empty(shape)
    noise[0] = fresh[0]
    for frame in range(1, shape[0]):
        noise[frame] = 0.5 * noise[frame - 1] + np.sqrt(0.75) * fresh[frame]
    return noise * spread


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the records folder to create")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another dataset (default 0)")
    parser.add_argument("--subjects", type=int, default=SUBJECTS, help=f"how many subjects (default {SUBJECTS})")
    parser.add_argument("--overwrite", action="store_true", help="replace existing records")
    options = parser.parse_args(arguments)
    if options.subjects < 1 or options.seed < 0:
        parser.error(f"--subjects {options.subjects} --seed {options.seed}: expected at least 1 and at least 0")
    with plain_errors():
        records.check_destination(options.out, options.overwrite)
        total = len(all_fields(options.subjects))
        clips = make_clips(options.seed, options.subjects)
        records.write_records(options.out, _INFO, clips, total=total, overwrite=options.overwrite)


if __name__ == "__main__":
    main()
