"""Computes the built-in synthetic dataset in seconds: clips of an articulated figure, with mosaics and text features.

    python -m data_prep.synthetic --out DIR [--seed 0] [--subjects 10] [--overwrite]

Ten subjects perform twelve actions in front of three cameras, each twice, in NTU RGB+D's layout. Two actions have two
people. Drinking and phoning, brushing teeth and eating, writing and typing differ in the object and in a small motion
of the hand. The object is drawn at random, so it hints at the action without revealing it. Subjects 1, 2, 3, 5, 6, 8
and 9 train, the others test.

The text feature is a noisy stand-in for the answer of a visual question answering model to "is the person holding
something?". It depends only on the object in the clip and on noise that all actions of a recording (subject, camera,
replication) share; given the object, it says nothing about the label.

Every clip is a pure function of the seed and its own fields. It does not depend on the other clips nor on the number of
processes.
"""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Iterator

import numpy as np

from data_prep.formats import sources, worker_processes
from data_prep.images import person_crops
from data_prep.preparation import commands
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
    """The fields that make up the name of a clip; numbers count from 1, as in NTU RGB+D."""

    action: int
    subject: int
    camera: int
    replication: int

    @property
    def name(self) -> str:
        return f"A{self.action:03d}S{self.subject:02d}C{self.camera}R{self.replication}"


@dataclasses.dataclass(frozen=True)
class Subject:
    """The properties of a person, the same in all clips: body, looks, habits. Tempo and vigor are about 1."""

    body: figure.Body
    clothes: drawing.Clothes
    tempo: float
    vigor: float
    left_handed: bool


def generator(seed: int, stream: str, *fields: int) -> np.random.Generator:
    """The random numbers for one purpose (`stream`) at one place (`fields`)."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *fields]))


def sample_subject(rng: np.random.Generator) -> Subject:
    """Draws a person."""
    return Subject(
        body=figure.sample_body(rng),
        clothes=drawing.sample_clothes(rng),
        tempo=rng.uniform(0.85, 1.2),
        vigor=rng.uniform(0.85, 1.15),
        left_handed=bool(rng.random() < 0.2),
    )


def holding_answer(item: str, noise: np.random.Generator) -> np.ndarray:
    """A noisy stand-in for the VQA answer to "is the person holding something?": float32 [3] token ids.

    Args:
      item: a key of `actions.OBJECTS`; the answer depends on nothing else in the clip.
      noise: makes one answer in ten wrong.
    """
    wrong = noise.random() < FLIPPED_ANSWERS
    return np.array([DECODE, YES if actions.OBJECTS[item] != wrong else NO, SEPARATOR], dtype=np.float32)


def answer_noise(seed: int, fields: ClipFields) -> np.random.Generator:
    """The noise of a recording's answers. All actions of a recording share it, so it cannot reveal the action."""
    return generator(seed, "answer", fields.subject, fields.camera, SETUP, fields.replication)


@dataclasses.dataclass(frozen=True)
class Performance:
    """A scene and the people in it, before a camera sees it."""

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
        vigor=subject.vigor * rng.uniform(0.93, 1.07),
        item=item,
    )
    mirrored = subject.left_handed != (rng.random() < 0.08)
    return Performance(action.perform(take), [subject.clothes, partner.clothes], item, mirrored)


def _item(rng: np.random.Generator, action: actions.Action) -> str:
    """Draws the object of a take."""
    return str(rng.choice(list(action.items), p=list(action.items.values())))


def make_clip(seed: int, fields: ClipFields) -> records.Clip:
    """Makes one clip: skeleton float32 (T, M, 25, 3) in meters, JPEG mosaic of 480 x 480, text feature."""
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
    """Yields all clips in the order of `all_fields`, made by one process per core."""
    workers = min(8, sources.usable_cores())
    yield from worker_processes.map_in_order(functools.partial(make_clip, seed), all_fields(subjects), workers)


@dataclasses.dataclass(frozen=True)
class _Camera:
    """A view: maps a scene's coordinates to the camera's (x to the right of the mirrored picture, y up, z away)."""

    rotation: np.ndarray
    mirror: np.ndarray
    center: np.ndarray
    offset: np.ndarray

    @classmethod
    def sample(cls, rng: np.random.Generator, scene: actions.Scene, fields: ClipFields, mirrored: bool) -> "_Camera":
        """Places the camera of `fields` 2.5 to 4 meters in front of a scene, slightly differently for every clip."""
        heading = actions.ACTIONS[fields.action - 1].heading + rng.uniform(-0.2, 0.2)
        middle = np.mean([person.joints[:, figure.SPINE_BASE].mean(axis=0) for person in scene.figures], axis=0)
        near = 3.0 if len(scene.figures) == 2 else 2.5
        offset = vectors(rng.uniform(-0.3, 0.3), -rng.uniform(1.1, 1.4), rng.uniform(near, 4.0))
        # Half a turn: z leads away from the camera, and people who face the camera look against z.
        rotation = turn(yaw=np.pi + heading - _CAMERA_ANGLES[fields.camera - 1])
        return cls(rotation, vectors(-1 if mirrored else 1, 1, 1), middle * (1, 0, 1), offset)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Places [..., 3], meters."""
        return self.directions(points - self.center) + self.offset

    def directions(self, directions: np.ndarray) -> np.ndarray:
        """Directions [..., 3]."""
        return apply(self.rotation, directions * self.mirror)

    @property
    def floor(self) -> float:
        """y of the floor, meters."""
        return float(self.offset[1])


def _axes(direction: np.ndarray) -> np.ndarray:
    """A frame [T, 3, 3] of a direction [T, 3]; its rows are the direction, up, and a level vector to the side."""
    upward = np.broadcast_to(vectors(0, 1, 0), direction.shape)
    return np.stack([direction, upward, np.cross(upward, direction)], axis=1)


def _sensor_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Jitter of a tracked skeleton (T, M, V, C), meters. Half of it persists between frames; fingers have more."""
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
    parser = commands.argument_parser(__doc__, source=None)
    parser.add_argument("--seed", type=int, default=0, help="seed of the dataset (default 0)")
    parser.add_argument("--subjects", type=int, default=SUBJECTS, help=f"number of subjects (default {SUBJECTS})")
    options = parser.parse_args(arguments)
    if options.subjects < 1 or options.seed < 0:
        parser.error(
            f"--subjects {options.subjects} --seed {options.seed}: expected at least one subject and "
            "a seed of at least 0"
        )
    with plain_errors():
        records.check_destination(options.out, options.overwrite)
        total = len(all_fields(options.subjects))
        clips = make_clips(options.seed, options.subjects)
        records.write_records(options.out, _INFO, clips, total=total, overwrite=options.overwrite)


if __name__ == "__main__":
    main()
