"""The weights of one model as the start of another: every array that fits is taken, joints and bodies are mapped.

    variables, report = fit(source, initial, layout=layout, class_names=class_names, bodies=1)

It works on trees of arrays; where the source comes from (a run, an import, a bundle) is up to the caller.

* An array without joints, bodies or classes in its shape is taken if the shapes agree.
* Classes: the classifier, FRM's matrices and Info-GCN's priors are taken if the names of the classes are the same, in
  any order. Otherwise they are new.
* Joints: where the layouts differ, `layouts.joint_mapping` says which joints of the source a joint follows from. A
  joint that is the same in both keeps its values; one that is computed from several gets their average, with the sizes
  of the rule's weights. So a mapping between layouts of the same joints is exact, and any other is an approximation.
* Bodies: the input's batch norm, `data_bn`, has statistics for each body of a clip; see `models.bodies`.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmcl_jax.data.layouts import Layout, LayoutError, joint_mapping
from mmcl_jax.models import classifier_of
from mmcl_jax.models.bodies import fit_array
from mmcl_jax.models.mmcl import BACKBONE
from mmcl_jax.runtime.errors import MMCLError
from mmcl_jax.runtime.words import counted

INPUT_NORM = "data_bn"  # of every backbone here: a value for each (body, joint, channel) of a clip
# The other arrays of the backbones that have joints in their shape: axes `[..., V, V]` and `[V, C]`.
TOPOLOGIES = ("PA", "shared_topology")
PER_JOINT = ("position",)
_SHOWN = 6

_Path = tuple[str, ...]


class InitialWeightsError(MMCLError, ValueError):
    """Weights that no array of the model can start from. The message names both and what differs."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A trained model whose weights another one starts from.

    Attributes:
      name: what messages call it, such as its folder.
      variables: of `MMCL`: `params` and `batch_stats`, each with `BACKBONE` and perhaps FAM, FRM and image encoder.
      backbone: key of `mmcl_jax.models.BACKBONES`.
      base_channels: its width.
      layout: its joints; None: unknown.
      class_names: by label; None: unknown.
      bodies: M of the clips that it was trained on; None: unknown, which says one or two by the arrays' sizes.
      step: training steps behind the weights.
      adjacency: the topologies that its graph convolutions started from, `[V, V]` or as many as the convolutions have,
        `[..., V, V]`; None: unknown.
      config: of its run, as `config.json` stores it; None: unknown.
      fault: why joints and classes are unknown; empty: they are not, or nobody named them.
    """

    name: str
    variables: Mapping
    backbone: str
    base_channels: int
    layout: Layout | None = None
    class_names: tuple[str, ...] | None = None
    bodies: int | None = None
    step: int = 0
    adjacency: np.ndarray | None = None
    config: Mapping[str, Any] | None = None
    fault: str = ""


@dataclasses.dataclass
class Report:
    """What became of the arrays, by their names, such as `params/backbone/fc/kernel`.

    Attributes:
      source: the source's name.
      step: the source's training steps.
      taken: arrays that were taken as they are.
      mapped: arrays whose joints, bodies or classes were mapped, and how.
      new: arrays that are left as they were drawn, and why.
      unused: arrays of the source that the model does not have.
      notes: what was assumed.
    """

    source: str
    step: int
    taken: list[str] = dataclasses.field(default_factory=list)
    mapped: dict[str, str] = dataclasses.field(default_factory=dict)
    new: dict[str, str] = dataclasses.field(default_factory=dict)
    unused: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report as a dict of lists and dicts."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """The report in a few lines."""
        total = len(self.taken) + len(self.mapped) + len(self.new)
        lines = [
            f"initial weights from {self.source}, step {self.step}: of {total} arrays, {len(self.taken)} are taken as "
            f"they are, {len(self.mapped)} mapped, {len(self.new)} new"
        ]
        for what, arrays in (("mapped", self.mapped), ("new", self.new)):
            for reason in dict.fromkeys(arrays.values()):
                names = _modules([name for name, why in arrays.items() if why == reason])
                lines.append(f"{what}: {_shorten(names)}: {reason}")
        if self.unused:
            lines.append(f"not used: {_shorten(_modules(self.unused))}, which this model does not have")
        return lines + self.notes


def fit(
    source: Source,
    initial: Mapping,
    *,
    layout: Layout,
    class_names: Collection[str],
    bodies: int,
    adjacency: np.ndarray | None = None,
    skip: Collection[str] = (),
) -> tuple[dict, Report]:
    """Takes what fits of the source's weights into a model's initial variables.

    Args:
      source: the trained model.
      initial: variables of `MMCL` as they were drawn, arrays (or their shapes, for a trial).
      layout: the joints of the model's clips.
      class_names: of the model, by label.
      bodies: M of the model's clips.
      adjacency: the topologies that a backbone like the source's starts from on `layout`, `[..., V, V]`. With the
        source's own, mapped topologies are these and what the source has learned; None: the mapped topologies.
      skip: modules of `MMCL` that keep their initial variables.

    Returns:
      (variables of `MMCL`, what became of each array).

    Raises: InitialWeightsError if no array of the backbone fits.
    """
    report = Report(source.name, source.step)
    found, wanted = _flat(source.variables), _flat(initial)
    joints = _JointMap.between(source, layout, report)
    classes = _class_order(source, tuple(class_names), report)
    classifier = classifier_of(source.variables["params"][BACKBONE])
    trained = source.bodies or _count_bodies(found, wanted, bodies, joints)
    fitted = dict(wanted)
    for path, leaf in wanted.items():
        name, shape = "/".join(path), tuple(leaf.shape)
        if path[1] in skip:
            report.new[name] = "comes from elsewhere"
            continue
        if path not in found:
            report.new[name] = "the source has none"
            continue
        value, how = np.asarray(found[path]), ""
        axes = _class_axes(path, classifier, value.ndim)
        if axes:
            value, how = classes.of(value, axes)
        elif path[1] == BACKBONE and path[2] == INPUT_NORM:
            value, how = joints.input_norm(path[-1], value, trained, bodies)
        elif path[1] == BACKBONE and path[-1] in TOPOLOGIES:
            value, how = joints.topology(value, source.adjacency, adjacency)
        elif path[1] == BACKBONE and path[-1] in PER_JOINT:
            value, how = joints.per_joint(value)
        if value is None or value.shape != shape:
            there = tuple(np.shape(found[path]))
            report.new[name] = how if value is None else f"{there} in the source, {shape} in this model"
            continue
        fitted[path] = value.astype(leaf.dtype)
        if how:
            report.mapped[name] = how
        else:
            report.taken.append(name)
    report.unused = ["/".join(path) for path in found if path not in wanted]
    start = f"params/{BACKBONE}/"
    if not any(name.startswith(start) for name in (*report.taken, *report.mapped)):
        raise InitialWeightsError(f"{source.name}: no array of its backbone fits this model's")
    tree = unflatten_dict(fitted)
    return {kind: {**_empty(initial[kind]), **tree.get(kind, {})} for kind in ("params", "batch_stats")}, report


@dataclasses.dataclass(frozen=True)
class _Classes:
    """Which class of the source each class of the model is; None: they differ."""

    order: tuple[int, ...] | None
    reason: str

    def of(self, value: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray | None, str]:
        if self.order is None:
            return None, self.reason
        for axis in axes:
            value = np.take(value, self.order, axis=axis)
        return value, self.reason


def _class_order(source: Source, names: tuple[str, ...], report: Report) -> _Classes:
    theirs, count = source.class_names, _count_classes(source)
    if theirs is None:
        if count != len(names):
            return _Classes(None, f"{count} classes in the source, {len(names)} in this model")
        report.notes.append(
            f"the source does not name its {count} classes; this model has as many, and they are taken to be the same"
        )
        return _Classes(tuple(range(count)), "")
    if theirs == names:
        return _Classes(tuple(range(count)), "")
    if sorted(theirs) == sorted(names) and len(set(names)) == len(names):
        return _Classes(tuple(theirs.index(name) for name in names), "the same classes in another order")
    return _Classes(
        None,
        f"other classes: {len(theirs)} in the source, {len(names)} in this model, {_common(theirs, names)} in both",
    )


def _common(theirs: Collection[str], names: Collection[str]) -> int:
    return len(set(theirs) & set(names))


def _count_classes(source: Source) -> int:
    if source.class_names is not None:
        return len(source.class_names)
    params = source.variables["params"][BACKBONE]
    classifier = classifier_of(params)
    return int(np.size(params[classifier]["bias"])) if classifier else 0


def _class_axes(path: _Path, classifier: str | None, dimensions: int) -> tuple[int, ...]:
    """The axes of an array that are classes."""
    if path[1] == BACKBONE and path[2] == classifier:
        return (-1,)
    if path[1] == BACKBONE and path[-1] == "z_prior":
        return (0,)
    if path[1:] == ("refinement", "matrices"):
        return (-1,) if dimensions == 2 else (-2, -1)
    return ()


@dataclasses.dataclass(frozen=True)
class _JointMap:
    """How joints of the model follow from those of the source.

    Attributes:
      places: float32 `[V, V_source]`, rows sum to one: coordinates from coordinates; None: the joints are the same.
      how: for the report.
      fault: why there is no mapping; empty: there is one, or none is needed.
      joints: V of the source; 0: unknown.
    """

    places: np.ndarray | None
    how: str = ""
    fault: str = ""
    joints: int = 0

    @classmethod
    def between(cls, source: Source, layout: Layout, report: Report) -> "_JointMap":
        if source.layout is None:
            report.notes.append(
                f"the source does not name its joints; they are taken to be this model's {layout.num_joints}, in its "
                "order, wherever the shapes agree"
            )
            return cls(None, joints=layout.num_joints)
        theirs = source.layout
        if theirs.joints == layout.joints:
            return cls(None, joints=layout.num_joints)
        try:
            places = joint_mapping(theirs, layout)
        except LayoutError as error:
            return cls(None, fault=f"other joints, which cannot be mapped: {error}", joints=theirs.num_joints)
        same = int((places == 1).sum())
        computed = layout.num_joints - same
        how = f"{same} joints are joints of the source" + (
            f", {computed} are computed from several" if computed else ""
        )
        return cls(places, how, joints=theirs.num_joints)

    @property
    def shares(self) -> np.ndarray:
        """`[V, V_source]`: averages, the sizes of the weights."""
        assert self.places is not None
        sizes = np.abs(self.places)
        return sizes / sizes.sum(axis=1, keepdims=True)

    @property
    def sources(self) -> np.ndarray:
        """`[V_source, V]`: a joint of the source as an average of the model's; zero if the model has none of it."""
        assert self.places is not None
        exact = (self.places == 1).astype(np.float32).T
        sizes = np.where(exact.any(axis=1, keepdims=True), exact, self.shares.T)
        return sizes / np.maximum(sizes.sum(axis=1, keepdims=True), 1e-12)

    @property
    def order(self) -> np.ndarray | None:
        """int `[V]`: the joint of the source that each joint is, if the layouts have the same joints."""
        if self.places is None or not np.isin(self.places, (0, 1)).all() or len(self.places) != self.joints:
            return None
        order = self.places.argmax(axis=1)
        return order if len(set(order.tolist())) == self.joints else None

    def input_norm(self, name: str, value: np.ndarray, trained: int, bodies: int) -> tuple[np.ndarray | None, str]:
        """An array of `data_bn`. A mean follows its joint's coordinates, the others are averages."""
        if self.fault:
            return None, self.fault
        if not trained or value.size % trained:
            return None, f"{value.size} values for each body, joint and channel do not fit"
        how = ""
        if trained != bodies:
            value = np.asarray(fit_array(value, bodies, trained))
            kept = "those of the first are kept" if bodies < trained else "further bodies get the first one's"
            how = f"statistics of {counted(trained, 'body', 'bodies')} in the source, {bodies} in this model: {kept}"
        if self.places is None:
            return value, how
        if value.size % (bodies * self.joints):
            return None, f"{value.size} values for each body, joint and channel do not fit"
        matrix = self.places if name == "mean" else self.shares
        mapped = np.einsum("uv,mvc->muc", matrix, value.reshape(bodies, self.joints, -1))
        return mapped.reshape(-1), "; ".join(filter(None, (how, self.how)))

    def topology(
        self, value: np.ndarray, theirs: np.ndarray | None, ours: np.ndarray | None
    ) -> tuple[np.ndarray | None, str]:
        """`[..., V_source, V_source]` -> `[..., V, V]`; what was learned beyond `theirs` is added to `ours`."""
        if self.fault:
            return None, self.fault
        if self.places is None:
            return value, ""
        order = self.order
        if order is not None:
            return value[..., order, :][..., order], self.how
        learned, start = value, np.zeros((), value.dtype)
        if theirs is not None and ours is not None and theirs.shape[:-2] == ours.shape[:-2]:
            learned, start = value - theirs, ours
        mapped = np.einsum("uv,...vw,wx->...ux", self.shares, learned, self.sources)
        return start + mapped, self.how

    def per_joint(self, value: np.ndarray) -> tuple[np.ndarray | None, str]:
        """`[V_source, C]` -> `[V, C]`."""
        if self.fault:
            return None, self.fault
        return (value, "") if self.places is None else (self.shares @ value, self.how)


def _count_bodies(found: dict[_Path, Any], wanted: dict[_Path, Any], bodies: int, joints: _JointMap) -> int:
    """M of the source, from the size of its `data_bn`; 0: it does not fit."""
    path = ("params", BACKBONE, INPUT_NORM, "scale")
    if path not in found or path not in wanted:
        return bodies
    ours = joints.places.shape[0] if joints.places is not None else joints.joints
    per_joint = wanted[path].size / (bodies * ours)
    count = np.size(found[path]) / (per_joint * joints.joints)
    return int(count) if count == int(count) else 0


def _flat(variables: Mapping) -> dict[_Path, Any]:
    return flatten_dict({kind: dict(variables.get(kind, {})) for kind in ("params", "batch_stats")})


def _empty(tree: Mapping) -> dict:
    """The modules of a tree that hold no arrays."""
    return {name: part for name, part in tree.items() if isinstance(part, Mapping) and not part}


def _modules(names: list[str]) -> list[str]:
    """Names of arrays without their collection and, if all arrays of a module are among them, without their own."""
    return list(dict.fromkeys("/".join(name.split("/")[1:-1]) or name for name in names))


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
