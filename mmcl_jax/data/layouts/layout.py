"""A skeleton layout: joint names and bones."""

import dataclasses

import numpy as np

from mmcl_jax.runtime.errors import MMCLError


class LayoutError(MMCLError, ValueError):
    """A layout, a joint of it or a rule for its joints that does not fit. The message names the joints."""


def plain_name(name: str) -> str:
    """A joint name as rules compare it: in small letters, with single spaces, `_` for a space."""
    return " ".join(name.replace("_", " ").casefold().split())


_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}


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

    @property
    def mirror(self) -> np.ndarray:
        """int `[V]`: each joint's partner on the other side, by name ("left hip", "right hip"); itself if it has none.

        A picture that is flipped left to right shows the joints `clip[..., layout.mirror, :]`.
        """
        names = [plain_name(name) for name in self.joints]
        swapped = [" ".join(_SIDES.get(word, word) for word in name.split()) for name in names]
        return np.array([names.index(name) if name in names else joint for joint, name in enumerate(swapped)])

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
