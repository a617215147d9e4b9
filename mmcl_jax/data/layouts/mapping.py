"""Rules that compute the joints of one layout from another's."""

import collections
import re

import numpy as np

from mmcl_jax.data.layouts.known import LAYOUTS
from mmcl_jax.data.layouts.layout import Layout, LayoutError, plain_name

# Joints by their role, not by a layout's names: `_anatomy` calls its pelvis, belly and chest so. A joint that a layout
# lacks is computed from its others, by the first rule whose joints it has. A hand reaches a third of the forearm beyond
# the wrist, its tip three quarters of the hand beyond that, as measured on NTU RGB+D, NW-UCLA and UTD-MHAD. Only toes
# tell where a foot points; nothing tells on which side of the hand a thumb is.
_SIDED_RULES = """SIDE hand = 0.5 SIDE index + 0.5 SIDE pinky, SIDE hand = 1.33 SIDE wrist - 0.33 SIDE elbow,
    SIDE hand tip = 1.75 SIDE hand - 0.75 SIDE wrist, SIDE thumb = 1.2 SIDE hand - 0.2 SIDE wrist,
    SIDE index = SIDE hand, SIDE pinky = SIDE hand, SIDE foot = SIDE big toe, SIDE foot = SIDE ankle,
    SIDE big toe = SIDE foot, SIDE small toe = SIDE big toe, SIDE heel = SIDE ankle, SIDE eye = head,
    SIDE eye inner = SIDE eye, SIDE eye outer = SIDE eye, SIDE ear = head, SIDE mouth = nose"""
_BODY_RULES = f"""pelvis = 0.5 left hip + 0.5 right hip, chest = 0.5 left shoulder + 0.5 right shoulder,
    belly = 0.5 pelvis + 0.5 chest, head = 0.5 left ear + 0.5 right ear, head = 0.5 neck + 0.5 top of head, head = nose,
    neck = 0.67 chest + 0.33 head, nose = head, top of head = 1.5 head - 0.5 chest,
    {_SIDED_RULES.replace("SIDE", "left")}, {_SIDED_RULES.replace("SIDE", "right")}"""

# The trunk of Kinect v1 (NW-UCLA, UTD-MHAD) has joints of the same role in other places than v2 (NTU RGB+D) and pose
# estimators: v1's hip center is 7 cm above the line between the hips, v2's base of the spine on it; v1's spine is a
# sixth of the way from hip center to shoulder center (41 cm), v2's middle of the spine at 0.57 from base to chest
# (47 cm). Medians over NW-UCLA and UTD-MHAD, and over one clip of NTU RGB+D.
_TO_KINECT_V1 = "pelvis = 0.85 pelvis + 0.15 chest, belly = 0.71 pelvis + 0.29 chest"
_FROM_KINECT_V1 = """pelvis = 0.5 left hip + 0.5 right hip,
    belly = 0.215 left hip + 0.215 right hip + 0.57 chest"""

_Rule = tuple[str, dict[str, float]]  # a joint, and the joints that it is computed from with their weights


def joint_mapping(source: Layout, target: Layout, rules: str = "") -> np.ndarray:
    """How the joints of `target` follow from those of `source`: float32 `[V_target, V_source]`, rows sum to one.

    A joint of `target` is computed by the first of these that applies: `rules`; measured rules for the trunk of Kinect
    v1; the joint of `source` with the same name or role (pelvis, chest, and the center between them), words in any
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
    _complete(made)
    trunk = _parse_rules(_trunk_rules(source, target))
    made |= {name: _weighted_sum(made, terms) for name, terms in trunk if terms.keys() <= made.keys()}
    by_rule = _own_rules(source, target, rules)
    rows = [by_rule.get(plain_name(name), made.get(role)) for name, role in zip(target.joints, wanted, strict=True)]
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


def _own_rules(source: Layout, target: Layout, rules: str) -> dict[str, np.ndarray]:
    """The rows of the joints that the caller's rules compute. Raises: LayoutError."""
    own = {plain_name(name): joint for joint, name in enumerate(source.joints)}
    rows: dict[str, np.ndarray] = {}
    parsed = _parse_rules(rules)
    for name, terms in parsed:
        if [other for other, _ in parsed].count(name) > 1:
            raise LayoutError(f"joint rule for {name!r}: given more than once; keep one")
        if name not in map(plain_name, target.joints):
            raise LayoutError(f"joint rule for {name!r}: not one of the joints {', '.join(target.joints)}")
        unknown = [term for term in terms if term not in own]
        if unknown:
            raise LayoutError(
                f"joint rule for {name!r}: {unknown[0]!r} is not one of the joints {', '.join(source.joints)}"
            )
        rows[name] = _weighted_sum({term: np.eye(source.num_joints)[own[term]] for term in terms}, terms)
    return rows


def _anatomy(layout: Layout) -> list[str]:
    """The role or name of each joint. `spine` is the belly in one layout and the chest in another: roles come first."""
    names = [plain_name(name) for name in layout.joints]
    roles = {"pelvis": layout.pelvis, "chest": layout.chest}
    if None not in roles.values():
        roles = {"belly": layout.centre, **roles}  # in a layout without a trunk, the center may be the nose
    for role, joint in roles.items():
        if joint is not None:
            names[joint] = role
    return names


def _trunk_rules(source: Layout, target: Layout) -> str:
    v1 = set(LAYOUTS["nw_ucla"].joints)
    kinds = set(source.joints) == v1, set(target.joints) == v1
    return {(True, False): _FROM_KINECT_V1, (False, True): _TO_KINECT_V1}.get(kinds, "")


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
            terms[plain_name(joint)] += float(f"{sign}1") * float(weight or 1)
        if not (equals and name.strip() and terms and all(terms)):
            raise LayoutError(f"joint rule {rule!r} is not of the form 'joint = 0.5 joint + 0.5 joint'")
        total = sum(terms.values())
        if abs(total - 1) > 1e-6:
            raise LayoutError(f"joint rule {rule!r}: the weights sum to {total:g}, not to 1")
        rules.append((plain_name(name), dict(terms)))
    return rules
