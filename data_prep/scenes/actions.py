"""The actions of the synthetic dataset: each turns a take (who, how fast, how far, with which object) into a scene.

Actions are written for right-handed people; a left-handed take is the mirror image of the scene. Coordinates are those
of `data_prep.scenes.figure`: the first person stands at the origin and faces z, in meters.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from data_prep.scenes import figure
from data_prep.scenes.figure import Figure, apply, blend, pulse, ramp, turn, unit, vectors

# Object -> whether people hold it; the others are on the table or on the floor.
OBJECTS = {
    "nothing": False,
    "keyboard": False,
    "football": False,
    "cup": True,
    "phone": True,
    "toothbrush": True,
    "sandwich": True,
    "pen": True,
    "book": True,
    "ball": True,
}


@dataclasses.dataclass(frozen=True)
class Take:
    """The properties of a clip that are fixed before its action begins.

    Attributes:
      rng: random numbers of this take; nothing else draws from it.
      seconds: [T], the time of each frame in the performer's tempo.
      bodies: of the performer and of a partner, who is present only in two-person actions.
      vigor: about 1; scales how far hands move.
      item: a key of OBJECTS.
    """

    rng: np.random.Generator
    seconds: np.ndarray
    bodies: tuple[figure.Body, figure.Body]
    vigor: float
    item: str

    @property
    def phase(self) -> np.ndarray:
        """[T], 0 at the first frame and 1 at the last."""
        return self.seconds / self.seconds[-1]

    def about(self, value: float, spread: float = 0.1) -> float:
        """A random number within `spread` (relative) of `value`."""
        return value * self.rng.uniform(1 - spread, 1 + spread)

    def beat(self, frequency: float, spread: float = 0.15) -> np.ndarray:
        """[T], a sine of about `frequency` (hertz) and random phase."""
        return np.sin(2 * np.pi * self.about(frequency, spread) * self.seconds + self.rng.uniform(0, 2 * np.pi))

    def seldom(self) -> bool:
        """True in a seventh of the takes, which are performed so that they resemble a similar action."""
        return bool(self.rng.random() < 1 / 7)

    def drift(self, size: float) -> np.ndarray:
        """[T], slow and small movement, because nobody stands quite still. `size` is its amplitude."""
        return size * (self.beat(0.3, 0.4) + 0.5 * self.beat(0.7, 0.4)) + size * self.rng.normal()


@dataclasses.dataclass(frozen=True)
class Prop:
    """A thing to draw: its place [T, 3] in meters, and the direction [T, 3] of its long axis or of its front."""

    kind: str
    place: np.ndarray
    direction: np.ndarray


@dataclasses.dataclass
class Scene:
    """One or two figures and the things around them, in the same coordinates."""

    figures: list[Figure]
    props: list[Prop] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Action:
    """One class.

    Attributes:
      name: name of the class.
      perform: makes the scene of a take.
      seconds: average duration.
      items: object -> probability. There are several, so that the object does not reveal the class.
      people: 1 or 2.
      heading: angle in radians by which the scene is turned to the left of the middle camera.
    """

    name: str
    perform: Callable[[Take], Scene]
    seconds: float
    items: dict[str, float]
    people: int = 1
    heading: float = 0.0


def _person(take: Take, *, who=0, seat=0.0, lift=0.0, pitch=0.0, yaw=0.0, roll=0.0, nod=0.0, look=0.0, tilt=0.0):
    """A figure, from standing (seat 0) to sitting on a chair (seat 1), with hanging arms.

    `lift` raises (if negative, lowers) the base of the spine, in meters; pitch, yaw and roll turn the trunk, and nod,
    look and tilt the head, in radians. Each is a number or [T].
    """
    body, num_frames = take.bodies[who], len(take.seconds)
    seat = np.broadcast_to(seat, num_frames)
    height = body.standing + seat * (body.sitting - body.standing) + lift
    sway = (1 - 0.8 * seat) * take.drift(0.012)
    base = vectors(sway, height, -0.95 * body.thigh * seat + take.drift(0.008))
    trunk = turn(pitch + take.drift(0.02), yaw + take.drift(0.03), roll + take.drift(0.015))
    face = turn(nod + take.drift(0.04), look + take.drift(0.07), tilt + take.drift(0.03))
    person = Figure(body, base, trunk=trunk, face=face)
    for side, sign in figure.SIDES.items():
        ankle = vectors(sign * take.about(1.45, 0.2) * body.hip, body.ankle_height, take.about(0.03, 1.0) - 0.03)
        person.pose_leg(side, np.broadcast_to(ankle, base.shape))
        swing = vectors(take.drift(0.01), 0, take.drift(0.02))
        person.pose_arm(side, person.hanging(side) + swing)
    return person


def _arm(person: Figure, side: str, weight, hand, *, elbow=None, fingers=None, thumb=None) -> None:
    """Moves an arm from hanging (weight 0) to `hand` (weight 1), [T] and [T, 3]; for the rest see Figure.pose_arm.

    Hand and fingers move in an arc in front of the shoulder, because the arm cannot fold through it.
    """
    forwards = vectors(0.08 * figure.SIDES[side], 0, 0.24)
    if fingers is not None:
        fingers = unit(blend(weight, vectors(0, -1, 0.1), unit(fingers)) + _detour(weight, 4 * forwards))
    rest_elbow, rest_thumb = vectors(0.5 * figure.SIDES[side], -1.0, -0.6), vectors(0, 0.3, 1)
    person.pose_arm(
        side,
        blend(weight, person.hanging(side), hand) + _detour(weight, forwards),
        elbow=None if elbow is None else blend(weight, rest_elbow, elbow),
        fingers=fingers,
        thumb=None if thumb is None else blend(weight, rest_thumb, thumb),
    )


def _detour(weight: np.ndarray, furthest: np.ndarray) -> np.ndarray:
    """An offset that is `furthest` [3] where `weight` [T] is one half, and 0 where it is 0 or 1."""
    return (4 * weight * (1 - weight))[:, None] * furthest


def _held(person: Figure, side: str, kind: str, direction=None) -> list[Prop]:
    """The object in a hand, if it is one that people hold; upright unless a direction is given."""
    if not OBJECTS[kind]:
        return []
    hand = person.joints[:, figure.ARMS[side][3]]
    direction = vectors(0, 1, 0.1) if direction is None else direction
    return [Prop(kind, hand, np.broadcast_to(unit(direction), hand.shape))]


def _chair(person: Figure, behind: float) -> Prop:
    """A chair under a person who sits, or `behind` meters behind one who stands."""
    body = person.body
    place = np.broadcast_to(vectors(0, body.sitting - 0.07, -behind), person.joints[:, 0].shape)
    return Prop("chair", place, np.broadcast_to(vectors(0, 0, 1), place.shape))


def _desk(person: Figure, on_it: str) -> tuple[float, float, list[Prop]]:
    """Height and distance of a table in front of a person who sits, and the table with the object on it."""
    body = person.body
    height, distance = body.sitting + 0.13 * body.height, -0.95 * body.thigh + 0.3 * body.height * 0.75
    still = np.zeros_like(person.joints[:, 0])
    table = Prop("table", still + vectors(0, height, distance + 0.12), still + vectors(0, 0, 1))
    thing = Prop(on_it, still + vectors(0, height + 0.01, distance), still + vectors(0, 0, 1))
    return height, distance, [table, thing]


def _seated_sometimes(take: Take) -> float:
    return float(take.rng.random() < 0.25)


def _with_chair(person: Figure, seat: float) -> list[Prop]:
    return [_chair(person, 0.95 * person.body.thigh)] if seat else []


def _drink(take: Take) -> Scene:
    """The hand moves to the mouth, tilts with the head, and moves down again."""
    seat, sips = _seated_sometimes(take), int(take.rng.integers(1, 3))
    up = pulse(take.phase, 0.03, take.about(0.3), take.about(0.78, 0.05), 1.0)
    sip = ramp(take.phase, 0.28, 0.42) - ramp(take.phase, 0.68, 0.8)
    if sips == 2:
        sip = sip * (1 - 0.75 * pulse(take.phase, 0.46, 0.52, 0.54, 0.6))
    short = take.seldom()  # a full cup, hardly tilted
    person = _person(take, seat=seat, nod=-take.about(0.08 if short else 0.3, 0.3) * sip)
    hand = person.by_head(take.about(-0.05), -0.1 + 0.03 * sip + take.drift(0.006), take.about(0.1) - 0.01 * sip)
    tilt = sip * take.about(0.25 if short else 0.85, 0.2)
    fingers = vectors(0.65, 0.45 + 0.5 * tilt, 0.1 - 0.8 * tilt)
    elbow = vectors(-0.9, -0.8 + 0.5 * sip, 0.1)
    _arm(person, "right", up, hand, elbow=elbow, fingers=fingers, thumb=vectors(0, 0.9, 0.2 - tilt))
    cup = _held(person, "right", take.item, vectors(0, np.cos(1.3 * tilt), -np.sin(1.3 * tilt)))
    return Scene([person], [*_with_chair(person, seat), *cup])


def _phone_call(take: Take) -> Scene:
    """The hand moves to the ear and stays there, with small nods."""
    seat = _seated_sometimes(take)
    up = pulse(take.phase, 0.03, take.about(0.3), take.about(0.8, 0.05), 1.0 if take.rng.random() < 0.5 else 1.6)
    nods = take.about(0.06, 0.5) * take.beat(1.2) * up
    person = _person(take, seat=seat, nod=nods, tilt=take.about(0.15, 0.5) * up, look=take.drift(0.1))
    if take.seldom():  # the loudspeaker is on, and the phone in front of the mouth
        hand = person.by_head(take.about(-0.07), take.about(-0.12), take.about(0.12))
    else:
        hand = person.by_head(take.about(-0.11), take.about(-0.08, 0.3), take.about(0.03, 0.6))
    _arm(
        person,
        "right",
        up,
        hand,
        elbow=vectors(-0.8, -1, 0.2),
        fingers=vectors(0.15, 0.95, 0.0),
        thumb=vectors(0.5, 0, 0.6),
    )
    return Scene([person], [*_with_chair(person, seat), *_held(person, "right", take.item, vectors(0, 1, -0.25))])


def _brush_teeth(take: Take) -> Scene:
    """The hand is at the mouth and moves quickly from side to side by a few centimeters."""
    up = pulse(take.phase, -0.05, take.about(0.16), take.about(0.9, 0.04), 1.1)
    strokes = take.about(0.035, 0.25) * take.vigor * take.beat(2.8) * up
    person = _person(take, nod=take.about(0.1, 0.5) * up)
    hand = person.by_head(take.about(-0.1) + strokes, -0.1 + 0.3 * strokes, take.about(0.11))
    fingers = vectors(0.85, 0.2, 0.1 + 4 * strokes)
    _arm(person, "right", up, hand, elbow=vectors(-1, -0.55, 0.2), fingers=fingers, thumb=vectors(0.3, 1, -0.4))
    return Scene([person], _held(person, "right", take.item, vectors(0.95, 0.15, -0.3)))


def _eat(take: Take) -> Scene:
    """The hand moves repeatedly from the height of the chest to the mouth; the head bends a little towards it."""
    seat = _seated_sometimes(take)
    up = pulse(take.phase, -0.05, take.about(0.18), take.about(0.92, 0.04), 1.15)
    bite = (0.5 + 0.5 * take.beat(1.15)) ** 1.3
    person = _person(take, seat=seat, nod=0.12 * up + take.about(0.12, 0.4) * bite * up)
    mouth = person.by_head(take.about(-0.04), -0.11, take.about(0.11))
    below = person.by_chest(take.about(-0.1), take.about(-0.08, 0.5), take.about(0.27))
    if take.seldom():  # nibbling: the hand stays at the mouth
        below = blend(np.full_like(bite, 0.75), below, mouth)
    hand = blend(bite * min(take.vigor, 1.05), below, mouth)
    fingers = vectors(0.55, 0.35 + 0.5 * bite, 0.3 - 0.6 * bite)
    _arm(person, "right", up, hand, elbow=vectors(-0.7, -1, 0.1), fingers=fingers, thumb=vectors(0.1, 0.8, -0.3))
    return Scene([person], [*_with_chair(person, seat), *_held(person, "right", take.item, vectors(0.25, 1, 0))])


def _write(take: Take) -> Scene:
    """One hand moves along a line with small strokes, the other rests on the paper."""
    person = _person(take, seat=1.0, pitch=take.about(0.26, 0.2), yaw=take.about(0.1, 0.5), nod=take.about(0.4, 0.25))
    height, distance, desk = _desk(person, "paper")
    still = np.ones_like(take.phase)
    lines = take.rng.uniform(0.9, 2.1) * take.phase + take.rng.random()
    along = (lines % 1.0) - ramp(lines % 1.0, 0.85, 1.0)  # back to the margin at the end of a line
    stroke = take.about(0.017, 0.25) * take.beat(3.2)
    loop = take.about(0.012, 0.25) * take.beat(3.2)
    x = -0.2 + (0.06 if take.seldom() else 0.21) * take.vigor * along + loop  # a signature, or lines of text
    hand = vectors(x, height + 0.05 + 0.3 * loop, distance - 0.06 + stroke)
    fingers = vectors(0.5 + 8 * stroke, -0.3 + 6 * loop, 0.9)
    _arm(person, "right", still, hand, elbow=vectors(-0.9, -0.8, -0.3), fingers=fingers, thumb=vectors(0.9, 0.6, 0.2))
    rest = vectors(take.about(0.22), height + 0.03, distance) + vectors(take.drift(0.006), 0, take.drift(0.006))
    _arm(
        person,
        "left",
        still,
        rest,
        elbow=vectors(0.9, -0.8, -0.3),
        fingers=vectors(-0.6, -0.05, 0.8),
        thumb=vectors(-0.7, 0.1, -0.5),
    )
    pen = _held(person, "right", take.item, vectors(-0.35 + 6 * stroke, 0.9, -0.35))
    return Scene([person], [_chair(person, 0.95 * person.body.thigh), *desk, *pen])


def _type(take: Take) -> Scene:
    """Both hands tap in turn by one or two centimeters and wander over the keys."""
    person = _person(take, seat=1.0, pitch=take.about(0.18, 0.3), nod=take.about(0.22, 0.4))
    height, distance, desk = _desk(person, "keyboard")
    still, tap, one_hand = np.ones_like(take.phase), take.beat(2.8), take.seldom()
    for side, sign in figure.SIDES.items():
        rests = one_hand and side == "left"
        taps = (0.0 if rests else sign) * take.about(0.018, 0.25) * tap + 0.4 * np.abs(take.drift(0.01))
        x = sign * take.about(0.12) + take.drift(0.015)
        hand = vectors(x, height + 0.07 + taps, distance - 0.08 + take.drift(0.008))
        fingers = vectors(-0.25 * sign, -0.15 - 9 * taps, 0.95)
        _arm(
            person,
            side,
            still,
            hand,
            elbow=vectors(0.8 * sign, -1, -0.5),
            fingers=fingers,
            thumb=vectors(-sign, -0.2, 0.3),
        )
    pen = _held(person, "right", take.item, vectors(-0.8, 0.5, 0))
    return Scene([person], [_chair(person, 0.95 * person.body.thigh), *desk, *pen])


def _wave(take: Take) -> Scene:
    """The hand is raised beside the head and swings from side to side."""
    up = pulse(take.phase, -0.02, take.about(0.22), take.about(0.82, 0.06), 1.05)
    swing = take.beat(1.8) * take.vigor * up
    person = _person(take, roll=0.03 * swing)
    hand = person.by_chest(take.about(-0.33) - 0.13 * swing, take.about(0.2, 0.4), take.about(0.17, 0.3))
    fingers = vectors(-0.55 * swing, 1, 0.1)
    _arm(person, "right", up, hand, elbow=vectors(-0.8, -1, 0), fingers=fingers, thumb=vectors(1, 0, 0.2))
    return Scene([person], _held(person, "right", take.item, vectors(-0.5 * swing, 1, 0)))


def _sit_down(take: Take) -> Scene:
    """The person sits down on a chair: the trunk bends forwards, and the hands end on the thighs."""
    start = take.rng.uniform(0.02, 0.2)
    seat = ramp(take.phase, start, take.about(0.72, 0.12))
    person = _person(
        take, seat=seat, pitch=0.1 * seat + 2.2 * take.about(1, 0.2) * seat * (1 - seat), nod=-0.6 * seat * (1 - seat)
    )
    for side in figure.SIDES:
        hip, knee = figure.LEGS[side][:2]
        lap = 0.35 * person.joints[:, hip] + 0.65 * person.joints[:, knee] + vectors(0, 0.07, -0.03)
        _arm(person, side, ramp(take.phase, 0.2, 0.85), lap)
    chair = _chair(person, 0.95 * person.body.thigh)
    return Scene([person], [chair, *_held(person, "right", take.item)])


def _kick(take: Take) -> Scene:
    """One leg swings back and then up to the front; the arms balance."""
    hit = take.rng.uniform(0.38, 0.52)
    back = pulse(take.phase, hit - 0.33, hit - 0.12, hit - 0.12, hit)
    front = pulse(take.phase, hit - 0.12, hit + 0.08, hit + 0.12, hit + 0.42)
    person = _person(take, lift=-0.02 * (back + front), pitch=0.2 * back - 0.18 * front, yaw=0.3 * front - 0.15 * back)
    body = person.body
    rest = vectors(-1.3 * body.hip, body.ankle_height, 0)
    far = vectors(-0.03, take.about(0.5, 0.25) * take.vigor, take.about(0.62))
    ankle = blend(front, blend(back, rest, vectors(-0.12, 0.32, -0.38)), far)
    person.pose_leg("right", ankle, foot=blend(front, vectors(-0.2, -0.45, 1), vectors(0, 0.6, 1)))
    _arm(person, "left", front, person.by_chest(0.4, -0.25, 0.25))
    _arm(person, "right", front, person.by_chest(-0.4, -0.3, -0.2))
    props = _held(person, "left", take.item)
    if take.item == "football":
        flight = np.maximum(take.phase - hit, 0) * take.seconds[-1]
        place = vectors(-0.1, 0.11 + 2.5 * flight, 0.28 + 5.0 * flight)
        props.append(Prop("football", place, np.broadcast_to(vectors(0, 1, 0), place.shape)))
    return Scene([person], props)


def _throw(take: Take) -> Scene:
    """The hand moves behind the head and then forwards, and the trunk turns with it."""
    release = take.rng.uniform(0.52, 0.64)
    back = pulse(take.phase, release - 0.5, release - 0.24, release - 0.22, release + 0.04)
    front = pulse(take.phase, release - 0.22, release + 0.1, release + 0.14, release + 0.4)
    person = _person(take, pitch=0.3 * front - 0.12 * back, yaw=0.5 * front - 0.5 * back)
    behind = person.by_chest(take.about(-0.34), take.about(0.14, 0.4), -0.22 * take.vigor)
    before = person.by_chest(-0.1, take.about(0.02, 1.0), 0.52 * take.vigor)
    hand = blend(front, blend(back, person.hanging("right"), behind), before)
    hand = hand + _detour(back, vectors(-0.2, 0, -0.05)) + _detour(front, vectors(-0.05, 0.2, 0))
    person.pose_arm("right", hand, elbow=blend(back, vectors(-0.5, -1, -0.6), vectors(-1, -0.3, 0.2)))
    _arm(person, "left", back, person.by_chest(0.2, 0.0, 0.45))
    if take.item != "ball":
        return Scene([person], _held(person, "left", take.item))
    flight = np.maximum(take.phase - release, 0) * take.seconds[-1]
    palm = person.joints[:, figure.HAND_RIGHT]
    leaves = palm[np.argmax(take.phase >= release)]
    away = leaves + vectors(0.3 * flight, 1.2 * flight - 4.9 * flight**2, 6.0 * flight)
    place = np.where(flight[:, None] > 0, away, palm + vectors(0, 0.03, 0))
    return Scene([person], [Prop("ball", place, np.broadcast_to(vectors(0, 1, 0), place.shape))])


def _partner(person: Figure, yaw: float, x: float, z: float) -> None:
    """Turns the second figure by `yaw` and places it at (x, z) on the floor."""
    rotation = turn(yaw=yaw)
    person.joints = apply(rotation, person.joints) + vectors(x, 0, z)
    person.trunk, person.face = rotation @ person.trunk, rotation @ person.face


def _handshake(take: Take) -> Scene:
    """Two people face each other; their right hands meet and move up and down."""
    together = pulse(take.phase, 0.02, take.about(0.3), take.about(0.75, 0.06), 1.0)
    shake = take.about(0.04, 0.3) * take.vigor * take.beat(2.2) * ramp(take.phase, 0.22, 0.35)
    apart, height = take.rng.uniform(0.85, 1.0), take.about(0.56, 0.05) * take.bodies[0].height
    people = [_person(take, who=who, pitch=0.1 * together, nod=-0.05) for who in (0, 1)]
    for person in people:
        wrist = vectors(-0.02, height + shake, apart / 2 - 0.8 * person.body.hand)
        _arm(person, "right", together, wrist, fingers=vectors(0.1, -0.1, 1), thumb=vectors(0, 1, 0))
    props = _held(people[0], "left", take.item)
    _partner(people[1], np.pi, 0.0, apart)
    return Scene(people, props)


def _pat_on_back(take: Take) -> Scene:
    """One person stands behind the other and pats the other's back; the other gives way a little and looks around."""
    reach = pulse(take.phase, 0.02, take.about(0.25), take.about(0.82, 0.05), 1.05)
    pat = (0.5 + 0.5 * take.beat(1.9)) * reach
    person = _person(take, pitch=0.12 * reach, yaw=0.2 * reach)
    other = _person(
        take, who=1, pitch=0.05 * reach - 0.03 * pat, look=-take.about(0.4, 0.5) * ramp(take.phase, 0.3, 0.6)
    )
    apart = take.rng.uniform(0.5, 0.6)
    _partner(other, 0.0, -0.08, apart)
    back = other.joints[:, figure.SPINE_SHOULDER] + vectors(-0.06, -0.08, -0.19)
    hand = back + vectors(0, 0.03 * pat, -take.about(0.1) * take.vigor * pat)
    _arm(
        person,
        "right",
        reach,
        hand,
        elbow=vectors(-0.9, -0.8, 0),
        fingers=vectors(0.3, 0.5, 0.8),
        thumb=vectors(1, 0.4, 0),
    )
    return Scene([person, other], _held(person, "left", take.item))


ACTIONS = (
    Action("drink", _drink, 2.2, {"cup": 0.9, "nothing": 0.1}),
    Action("phone call", _phone_call, 2.2, {"phone": 0.9, "nothing": 0.1}),
    Action("brush teeth", _brush_teeth, 2.2, {"toothbrush": 0.9, "nothing": 0.1}),
    Action("eat", _eat, 2.3, {"sandwich": 0.85, "nothing": 0.15}),
    Action("write", _write, 2.2, {"pen": 0.85, "nothing": 0.15}),
    Action("type", _type, 2.2, {"keyboard": 0.8, "pen": 0.2}),
    Action("wave", _wave, 1.8, {"nothing": 0.55, "cup": 0.15, "phone": 0.15, "book": 0.15}),
    Action("sit down", _sit_down, 1.6, {"nothing": 0.5, "book": 0.25, "cup": 0.25}),
    Action("kick", _kick, 1.5, {"football": 0.7, "nothing": 0.15, "phone": 0.15}, heading=0.3),
    Action("throw", _throw, 1.8, {"ball": 0.8, "nothing": 0.1, "book": 0.1}, heading=0.3),
    Action("handshake", _handshake, 2.0, {"nothing": 0.6, "book": 0.2, "cup": 0.2}, people=2, heading=np.pi / 2),
    Action(
        "pat on back", _pat_on_back, 2.0, {"nothing": 0.5, "book": 0.25, "phone": 0.25}, people=2, heading=np.pi / 2
    ),
)
