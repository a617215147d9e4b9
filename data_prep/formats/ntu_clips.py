"""The clips of NTU RGB+D 60 and 120: classes, names, missing skeletons, counts."""

import collections
import dataclasses
import functools
import pathlib
import re
import textwrap
from collections.abc import Iterable

from mmcl_jax.runtime.words import counted

ACTIONS = (
    "drink water",
    "eat meal/snack",
    "brushing teeth",
    "brushing hair",
    "drop",
    "pickup",
    "throw",
    "sitting down",
    "standing up",
    "clapping",
    "reading",
    "writing",
    "tear up paper",
    "wear jacket",
    "take off jacket",
    "wear a shoe",
    "take off a shoe",
    "wear on glasses",
    "take off glasses",
    "put on a hat/cap",
    "take off a hat/cap",
    "cheer up",
    "hand waving",
    "kicking something",
    "put/take something inside/out of pocket",
    "hopping",
    "jump up",
    "make/answer a phone call",
    "playing with phone/tablet",
    "typing on a keyboard",
    "pointing to something with finger",
    "taking a selfie",
    "check time (from watch)",
    "rub two hands together",
    "nod head/bow",
    "shake head",
    "wipe face",
    "salute",
    "put the palms together",
    "cross hands in front",
    "sneeze/cough",
    "staggering",
    "falling",
    "touch head (headache)",
    "touch chest (heart pain)",
    "touch back (backache)",
    "touch neck (neckache)",
    "nausea or vomiting",
    "use a fan/feeling warm",
    "punching/slapping other person",
    "kicking other person",
    "pushing other person",
    "pat on back of other person",
    "point finger at the other person",
    "hugging other person",
    "giving something to other person",
    "touch other person's pocket",
    "handshaking",
    "walking towards each other",
    "walking apart from each other",
    "put on headphone",
    "take off headphone",
    "shoot at the basket",
    "bounce ball",
    "tennis bat swing",
    "juggling table tennis balls",
    "hush",
    "flick hair",
    "thumb up",
    "thumb down",
    "make ok sign",
    "make victory sign",
    "staple book",
    "counting money",
    "cutting nails",
    "cutting paper",
    "snapping fingers",
    "open bottle",
    "sniff",
    "squat down",
    "toss a coin",
    "fold paper",
    "ball up paper",
    "play magic cube",
    "apply cream on face",
    "apply cream on hand back",
    "put on bag",
    "take off bag",
    "put something into a bag",
    "take something out of a bag",
    "open a box",
    "move heavy objects",
    "shake fist",
    "throw up cap/hat",
    "hands up",
    "cross arms",
    "arm circles",
    "arm swings",
    "running on the spot",
    "butt kicks",
    "cross toe touch",
    "side kick",
    "yawn",
    "stretch oneself",
    "blow nose",
    "hit other person with something",
    "wield knife towards other person",
    "knock over other person",
    "grab other person's stuff",
    "shoot at other person with a gun",
    "step on foot",
    "high-five",
    "cheers and drink",
    "carry something with other person",
    "take a photo of other person",
    "follow other person",
    "whisper in other person's ear",
    "exchange things with other person",
    "support somebody with hand",
    "finger-guessing game",
)
TWO_PERSON_ACTIONS = frozenset((*range(50, 61), *range(106, 121)))
NUM_CLIPS = {  # of the complete datasets, without the clips whose skeletons are missing
    "ntu60_xsub": {"train": 40_091, "test": 16_487},
    "ntu60_xview": {"train": 37_646, "test": 18_932},
    "ntu120_xsub": {"train": 63_026, "test": 50_919},
    "ntu120_xset": {"train": 54_468, "test": 59_477},
}
_RECORDINGS = {60: 316, 120: 320}  # last class of A001-A060 and A061-A120 -> number of (setup, performer, replication)
_CAMERAS = (1, 2, 3)
LAST_SETUP_OF_60 = 17
_LAST = {"setup": 32, "camera": 3, "performer": 106, "replication": 2}  # of NTU RGB+D 120
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
_MISSING_LIST = pathlib.Path(__file__).with_name("ntu_missing_skeletons.txt")


@dataclasses.dataclass(frozen=True)
class ClipName:
    """The parts of a clip name such as S001C002P003R001A050; numbers count from 1."""

    setup: int
    camera: int
    performer: int
    replication: int
    action: int

    @property
    def fields(self) -> dict[str, int]:
        """Subject, camera, setup and replication, as records name them."""
        return {
            "subject": self.performer,
            "camera": self.camera,
            "setup": self.setup,
            "replication": self.replication,
        }

    def __str__(self) -> str:
        return f"S{self.setup:03d}C{self.camera:03d}P{self.performer:03d}R{self.replication:03d}A{self.action:03d}"


def parse_name(stem: str) -> ClipName | None:
    """The parts of a clip name; None if `stem` is not a valid name."""
    named = _NAME.fullmatch(stem)
    if not named:
        return None
    name = ClipName(*map(int, named.groups()))
    return name if min(dataclasses.astuple(name)) >= 1 and name.action <= len(ACTIONS) else None


def out_of_range(names: Iterable[str]) -> list[str]:
    """Lines that say which of the clips `names` have a setup, camera, performer or replication that is not NTU's."""
    clips = [clip for clip in map(parse_name, names) if clip]
    lines = []
    for part, last in _LAST.items():
        odd = [clip for clip in clips if getattr(clip, part) > last]
        if odd:
            lines.append(
                f"NOTE: {counted(len(odd), 'clip has', 'clips have')} a {part} beyond {last}, the last of "
                f"NTU RGB+D 120, among them {odd[0]}"
            )
    return lines


@functools.cache
def missing_skeletons() -> frozenset[str]:
    """Names of the 535 clips (302 of them of NTU RGB+D 60) without complete skeletons, as the authors list them."""
    return frozenset(_MISSING_LIST.read_text(encoding="ascii").split())


def inventory(names: Iterable[str]) -> list[str]:
    """Lines that say how many clips of NTU RGB+D 60 and 120 `names` contains, and which are missing.

    All clip names of the datasets are known, except for who performed in which setup. So missing clips are counted by
    class and, within recordings (setup, performer, replication) that have at least one clip, by setup.
    """
    clips = {clip for clip in map(parse_name, names) if clip}
    missing = {parse_name(name) for name in missing_skeletons()}
    lines = []
    for dataset, blocks in ((60, (60,)), (120, (60, 120))):
        if dataset == 120 and all(clip.setup <= LAST_SETUP_OF_60 for clip in clips):
            continue
        complete = collections.Counter()
        for block in blocks:
            for action in range(block - 59, block + 1):
                complete[action] = _RECORDINGS[block] * len(_CAMERAS)
        complete.subtract(clip.action for clip in missing if clip.action in complete)
        found = collections.Counter(clip.action for clip in clips if clip.action in complete)
        total, lacking = complete.total(), {action: complete[action] - found[action] for action in complete}
        lines.append(f"NTU RGB+D {dataset}: {found.total():,} of {total:,} clips")
        if any(lacking.values()):
            lines.append(_list("missing by class", {f"A{k:03d}": v for k, v in lacking.items() if v > 0}))
    gaps = _gaps(clips, missing)
    if gaps:
        lines.append(_list("missing by setup, in recordings that are present in part", gaps))
    return lines


def _gaps(clips: set[ClipName], missing: set[ClipName]) -> dict[str, int]:
    """The number of clips that each setup lacks in recordings that have at least one clip."""
    gaps = collections.Counter()
    for setup, performer, replication in {(clip.setup, clip.performer, clip.replication) for clip in clips}:
        first = 1 if setup <= LAST_SETUP_OF_60 else 61
        for action in range(first, first + 60):
            for camera in _CAMERAS:
                clip = ClipName(setup, camera, performer, replication, action)
                gaps[f"S{setup:03d}"] += clip not in clips and clip not in missing
    return {setup: count for setup, count in sorted(gaps.items()) if count}


def _list(title: str, counts: dict[str, int]) -> str:
    text = f"{title}: " + ", ".join(f"{key} {count}" for key, count in counts.items())
    return textwrap.fill(text, 120, initial_indent="  ", subsequent_indent="    ")
