"""Skeleton layouts: joint names and bones, and rules that compute the joints of one layout from another's."""

import collections
import dataclasses
import re

import numpy as np

from mmcl_jax.runtime.errors import MMCLError


class LayoutError(MMCLError, ValueError):
    """A layout, a joint of it or a rule for its joints that does not fit. The message names the joints."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """The joints of one sensor or pose estimator, and how bones connect them.

    Attributes:
      joints: joint names, in the order of the records.
      bones: (joint, parent) pairs of 0-based joint numbers: a tree, every joint but the root is a child once.
      centre: the joint that view transforms put at the origin; the belly, if there is one.
      pelvis, chest: other joints that a hierarchy can grow from; None if the layout has none.
      links: further pairs of neighbors in the hierarchy. For a bone stream, the bones chain some joints that are side
        by side on a body.

    Raises: LayoutError, naming the joints, if the bones are not a tree, or a name or number does not fit.
    """

    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    centre: int
    pelvis: int | None = None
    chest: int | None = None
    links: tuple[tuple[int, int], ...] = ()

    def __post_init__(self):
        repeated = {name for name in self.joints if self.joints.count(name) > 1}
        if repeated or not self.joints:
            raise LayoutError(f"layout: joints {sorted(repeated)} occur twice" if repeated else "layout: no joints")
        named = {joint for pair in (*self.bones, *self.links) for joint in pair}
        named |= {joint for joint in (self.centre, self.pelvis, self.chest) if joint is not None}
        unknown = named - set(range(self.num_joints))
        if unknown:
            raise LayoutError(
                f"layout: bones, links or center joints name {sorted(unknown)}; joints are 0 to {self.num_joints - 1}"
            )
        children = [joint for joint, _ in self.bones]
        twice = {self.joints[joint] for joint in children if children.count(joint) > 1}
        if twice:
            raise LayoutError(f"layout: {sorted(twice)} have two parents; the bones must be a tree")
        roots = [name for joint, name in enumerate(self.joints) if joint not in children]
        if len(roots) != 1:
            raise LayoutError(
                f"layout: {len(roots)} joints have no parent ({', '.join(roots)}); exactly one is the root"
            )
        reached = np.arange(self.num_joints)
        for _ in self.bones:
            reached = self.parents[reached]
        circling = [self.joints[joint] for joint in np.flatnonzero(self.joints.index(roots[0]) != reached)]
        if circling:
            raise LayoutError(
                f"layout: {', '.join(circling)} never reach the root {roots[0]}; their bones form a cycle"
            )

    @classmethod
    def from_names(
        cls, joints: str, bones: str, centre: str, pelvis: str | None = None, chest: str | None = None, links: str = ""
    ) -> "Layout":
        """Makes a layout from words: joints "nose, left eye", bones "left eye < nose" (joint < parent), with commas.

        Raises: LayoutError, naming what is not a joint, or if the bones are not a tree.
        """
        names = tuple(" ".join(name.split()) for name in joints.split(","))

        def number(name: str) -> int:
            name = " ".join(name.split())
            if name not in names:
                raise LayoutError(f"layout: {name!r} is not one of the joints {', '.join(names)}")
            return names.index(name)

        def pairs(text: str) -> tuple[tuple[int, int], ...]:
            found = [pair.split("<") for pair in text.split(",")] if text.strip() else []
            wrong = ["<".join(pair).strip() for pair in found if len(pair) != 2]
            if wrong:
                raise LayoutError(f"layout: {wrong[0]!r} is not a bone, 'joint < parent'")
            return tuple((number(joint), number(parent)) for joint, parent in found)

        trunk = [None if name is None else number(name) for name in (pelvis, chest)]
        return cls(names, pairs(bones), number(centre), *trunk, links=pairs(links))

    @property
    def num_joints(self) -> int:
        """V."""
        return len(self.joints)

    @property
    def parents(self) -> np.ndarray:
        """int `[V]`: each joint's parent; the root is its own parent, so that its bone vector is zero."""
        parents = np.arange(self.num_joints)
        for joint, parent in self.bones:
            parents[joint] = parent
        return parents

    def center_of_mass(self, number: int) -> int:
        """The joint that HD-GCN calls center of mass `number` (a joint number of NTU): 1 pelvis, 2 belly, 21 chest.

        Raises: LayoutError if the layout has no such joint.
        """
        joints = {1: self.pelvis, 2: self.centre, 21: self.chest}
        joint = joints.get(number)
        if joint is None:
            known = ", ".join(str(key) for key, joint in joints.items() if joint is not None)
            raise LayoutError(f"model.center_of_mass {number} is not one of {known} that this layout has")
        return joint


_NTU = Layout.from_names(
    joints="""base of spine, middle of spine, neck, head, left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip,
    right knee, right ankle, right foot, spine, left hand tip, left thumb, right hand tip, right thumb""",
    bones="""base of spine < middle of spine, middle of spine < spine, neck < spine, head < neck,
    left shoulder < spine, left elbow < left shoulder, left wrist < left elbow, left hand < left wrist,
    right shoulder < spine, right elbow < right shoulder, right wrist < right elbow, right hand < right wrist,
    left hip < base of spine, left knee < left hip, left ankle < left knee, left foot < left ankle,
    right hip < base of spine, right knee < right hip, right ankle < right knee, right foot < right ankle,
    left hand tip < left thumb, left thumb < left hand, right hand tip < right thumb, right thumb < right hand""",
    centre="middle of spine",
    pelvis="base of spine",
    chest="spine",
    links="left hand tip < left hand, right hand tip < right hand",
)

_KINECT_V1_BONES = """hip centre < spine, spine < shoulder centre, head < shoulder centre,
    left shoulder < shoulder centre, left elbow < left shoulder, left wrist < left elbow, left hand < left wrist,
    right shoulder < shoulder centre, right elbow < right shoulder, right wrist < right elbow,
    right hand < right wrist, left hip < hip centre, left knee < left hip, left ankle < left knee,
    left foot < left ankle, right hip < hip centre, right knee < right hip, right ankle < right knee,
    right foot < right ankle"""

_NW_UCLA = Layout.from_names(
    joints="""hip centre, spine, shoulder centre, head, left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip,
    right knee, right ankle, right foot""",
    bones=_KINECT_V1_BONES,
    centre="spine",
    pelvis="hip centre",
    chest="shoulder centre",
)

_UTD_MHAD = Layout.from_names(
    joints="""head, shoulder centre, spine, hip centre, left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip,
    right knee, right ankle, right foot""",
    bones=_KINECT_V1_BONES,
    centre="spine",
    pelvis="hip centre",
    chest="shoulder centre",
)

# The 17 keypoints of COCO, as HRNet, YOLO-pose and others give them. COCO has no neck: the shoulders are children of
# the nose, the hips of the shoulders, as in pyskl's graph.
_COCO = Layout.from_names(
    joints="""nose, left eye, right eye, left ear, right ear, left shoulder, right shoulder, left elbow, right elbow,
    left wrist, right wrist, left hip, right hip, left knee, right knee, left ankle, right ankle""",
    bones="""left eye < nose, right eye < nose, left ear < left eye, right ear < right eye, left shoulder < nose,
    right shoulder < nose, left elbow < left shoulder, right elbow < right shoulder, left wrist < left elbow,
    right wrist < right elbow, left hip < left shoulder, right hip < right shoulder, left knee < left hip,
    right knee < right hip, left ankle < left knee, right ankle < right knee""",
    centre="nose",
)

LAYOUTS = {"ntu": _NTU, "nw_ucla": _NW_UCLA, "utd_mhad": _UTD_MHAD, "coco": _COCO}


# Joints by their role, not by a layout's names: `_anatomy` calls its pelvis, belly and chest so. A joint that a layout
# lacks is computed from its others, by the first rule whose joints it has. A hand reaches a third of the forearm beyond
# the wrist, its tip three quarters of the hand beyond that, as measured on NTU RGB+D, NW-UCLA and UTD-MHAD. The other
# joints do not tell on which side of the hand a thumb is, or where a foot points.
_BODY_RULES = """pelvis = 0.5 left hip + 0.5 right hip, chest = 0.5 left shoulder + 0.5 right shoulder,
    belly = 0.5 pelvis + 0.5 chest, neck = 0.67 chest + 0.33 head, head = 0.5 left ear + 0.5 right ear, head = nose,
    nose = head, left eye = head, right eye = head, left ear = head, right ear = head,
    left hand = 1.33 left wrist - 0.33 left elbow, right hand = 1.33 right wrist - 0.33 right elbow,
    left hand tip = 1.75 left hand - 0.75 left wrist, right hand tip = 1.75 right hand - 0.75 right wrist,
    left thumb = 1.2 left hand - 0.2 left wrist, right thumb = 1.2 right hand - 0.2 right wrist,
    left foot = left ankle, right foot = right ankle"""

# The trunks of Kinect v1 (NW-UCLA, UTD-MHAD) and v2 (NTU RGB+D) have joints of the same role in different places:
# v1's hip center is 7 cm above the line between the hips, v2's base of the spine on it; v1's spine is a sixth of the
# way from hip center to shoulder center (41 cm), v2's middle of the spine at 0.57 from base to chest (47 cm). Medians
# over NW-UCLA and UTD-MHAD, and over one clip of NTU RGB+D.
_KINECT_RULES = {
    ("nw_ucla", "ntu"): """base of spine = 0.5 left hip + 0.5 right hip,
    middle of spine = 0.215 left hip + 0.215 right hip + 0.57 shoulder centre""",
    ("ntu", "nw_ucla"): """hip centre = 0.85 base of spine + 0.15 spine, spine = 0.71 base of spine + 0.29 spine""",
}

_Rule = tuple[str, dict[str, float]]  # a joint, and the joints that it is computed from with their weights


def joint_mapping(source: Layout, target: Layout, rules: str = "") -> np.ndarray:
    """How the joints of `target` follow from those of `source`: float32 `[V_target, V_source]`, rows sum to one.

    A joint of `target` is computed by the first of these that applies: `rules`; measured rules between Kinect v1 and
    v2; the joint of `source` with the same name or role (pelvis, chest, and the center between them), words in any
    case, `_` for a space; general rules, such as a neck from chest and head.

    Args:
      source: the layout of the clips.
      target: the wanted layout.
      rules: your own rules, comma-separated, "neck = 0.7 shoulder centre + 0.3 head, left thumb = left hand": a joint
        of `target`, and joints of `source` whose weights sum to one. Negative weights extrapolate.

    Raises:
      LayoutError: a rule is malformed or names an unknown joint, or joints of `target` cannot be computed; the message
        names them.
    """
    names, wanted = _anatomy(source), _anatomy(target)
    made: dict[str, np.ndarray] = {name: np.eye(source.num_joints)[joint] for joint, name in enumerate(names)}
    own = {_plain(name): joint for joint, name in enumerate(source.joints)}
    by_rule: dict[str, np.ndarray] = {}
    for text in (_kinect_rules(source, target), rules):  # the caller's replace ours
        parsed = _parse_rules(text)
        for name, terms in parsed:
            if [other for other, _ in parsed].count(name) > 1:
                raise LayoutError(f"joint rule for {name!r}: given more than once; keep one")
            if name not in map(_plain, target.joints):
                raise LayoutError(f"joint rule for {name!r}: not one of the joints {', '.join(target.joints)}")
            unknown = [term for term in terms if term not in own]
            if unknown:
                raise LayoutError(
                    f"joint rule for {name!r}: {unknown[0]!r} is not one of the joints {', '.join(source.joints)}"
                )
            by_rule[name] = _weighted_sum({term: np.eye(source.num_joints)[own[term]] for term in terms}, terms)
    _complete(made)
    rows = [by_rule.get(_plain(name), made.get(role)) for name, role in zip(target.joints, wanted, strict=True)]
    missing = [name for name, row in zip(target.joints, rows, strict=True) if row is None]
    if missing:
        raise LayoutError(
            f"joints {', '.join(missing)} cannot be made of {', '.join(source.joints)}; give a rule for each, as "
            f"'{missing[0]} = 0.5 {source.joints[0]} + 0.5 {source.joints[-1]}'"
        )
    return np.stack([row for row in rows if row is not None]).astype(np.float32)


def map_joints(clip: np.ndarray, mapping: np.ndarray, coordinates: int) -> np.ndarray:
    """A clip `[..., V_source, C]` on another layout, `[..., V_target, C]`, with the matrix of `joint_mapping`.

    The first `coordinates` channels are mapped linearly. A confidence after them is the mean of the confidences of the
    joints that a joint is computed from, weighted with the size of their weights.
    """
    shares = np.abs(mapping) / np.abs(mapping).sum(axis=1, keepdims=True)
    places = np.einsum("uv,...vc->...uc", mapping, clip[..., :coordinates])
    return np.concatenate([places, np.einsum("uv,...vc->...uc", shares, clip[..., coordinates:])], axis=-1)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _anatomy(layout: Layout) -> list[str]:
    """The role or name of each joint. `spine` is the belly in one layout and the chest in another: roles come first."""
    names = [_plain(name) for name in layout.joints]
    roles = {"pelvis": layout.pelvis, "chest": layout.chest}
    if None not in roles.values():
        roles = {"belly": layout.centre, **roles}  # in a layout without a trunk, the center may be the nose
    for role, joint in roles.items():
        if joint is not None:
            names[joint] = role
    return names


def _kinect_rules(source: Layout, target: Layout) -> str:
    kinds = [
        next((name for name in ("nw_ucla", "ntu") if set(LAYOUTS[name].joints) == set(layout.joints)), "")
        for layout in (source, target)
    ]
    return _KINECT_RULES.get((kinds[0], kinds[1]), "")


def _weighted_sum(values: dict[str, np.ndarray], weights: dict[str, float]) -> np.ndarray:
    return np.asarray(sum(weight * values[name] for name, weight in weights.items()))


def _complete(made: dict[str, np.ndarray]) -> None:
    """Adds the joints that the general rules compute from those in `made`, until no rule adds one."""
    rules, grows = _parse_rules(_BODY_RULES), True
    while grows:
        grows = False
        for name, terms in rules:
            if name not in made and all(term in made for term in terms):
                made[name] = _weighted_sum(made, terms)
                grows = True


def _parse_rules(text: str) -> list[_Rule]:
    """Rules "joint = weight joint + joint - ...", comma-separated. Raises: LayoutError."""
    rules = []
    for rule in filter(None, (part.strip() for part in text.split(","))):
        name, equals, expression = rule.partition("=")
        terms: dict[str, float] = collections.defaultdict(float)
        first, *others = re.split(r"\s([+-])\s", expression.strip())  # a hyphen within a name joins nothing
        for sign, term in (("+", first), *zip(others[::2], others[1::2], strict=True)):
            match = re.fullmatch(r"(-?\d*\.?\d+\s+)?(.*)", term.strip(), re.DOTALL)
            assert match is not None  # the pattern fits any text
            weight, joint = match.groups()
            terms[_plain(joint)] += float(f"{sign}1") * float(weight or 1)
        if not (equals and name.strip() and terms and all(terms)):
            raise LayoutError(f"joint rule {rule!r} is not of the form 'joint = 0.5 joint + 0.5 joint'")
        total = sum(terms.values())
        if abs(total - 1) > 1e-6:
            raise LayoutError(f"joint rule {rule!r}: the weights sum to {total:g}, not to 1")
        rules.append((_plain(name), dict(terms)))
    return rules
