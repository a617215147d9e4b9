"""What a trained skeleton model expects and what it answers: all that prediction needs in addition to the weights.

A run writes it into its workdir at the start, as `model.json`; a bundle stores it in its `config.json`.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmcl_jax.config import Config
from mmcl_jax.data.augmentations import AugmentationOptions
from mmcl_jax.data.records import CONFIDENCE, DatasetInfo, Records, RecordsError
from mmcl_jax.data.transforms import TransformOptions, output_channels
from mmcl_jax.models import BACKBONES, count_classes
from mmcl_jax.run_log import WorkdirError, read_workdir_json
from mmcl_jax.runtime.errors import ConfigError, MMCLError
from mmcl_jax.runtime.files import write_whole

DESCRIPTION = "model.json"
_VERSION = 1
_TRIED_CLIPS = 16
_NUMBERS = ("frame_rate", "window_seconds", "threshold", "temperature")


class DescriptionError(MMCLError, ValueError):
    """A description of a model that cannot be used; the message names the file and what is wrong with it."""


@dataclasses.dataclass(frozen=True)
class Description:
    """A skeleton model's clips, classes and configuration.

    Attributes:
      config: the run's; its parts `model` and `data` say which backbone it is and what the test transform does.
      info: the layout, channels and units of the clips, and the names of the model's classes, by label.
      bodies: M of the clips that the model was trained on.
      centered: whether its clips have the layout's center joint of the first frame at the origin already, as the
        records of NTU RGB+D do; prediction moves a clip there.
      protocol: the division of the dataset that it was trained on; empty: unknown.
      training_clips: how many clips trained it; 0: unknown.
      frame_rate: frames a second of its clips; 0: unknown.
      window_seconds: time that one of its training windows covers; 0: whole clips, of any length.
      threshold: a clip whose best class is less probable than this is none of the classes; 0: not calibrated.
      temperature: by which logits are divided before they become probabilities; 1: not calibrated.
    """

    config: Config
    info: DatasetInfo
    bodies: int
    centered: bool
    protocol: str = ""
    training_clips: int = 0
    frame_rate: float = 0.0
    window_seconds: float = 0.0
    threshold: float = 0.0
    temperature: float = 1.0

    @property
    def class_names(self) -> tuple[str, ...]:
        """By label."""
        return self.info.class_names

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """`[M, T, V, C]` of the clips that the model sees."""
        data, (joints, channels) = self.config.data, self.info.joint_shape
        seen = output_channels(data.stream, data.camera.views, channels, self.info.num_coordinates)
        return self.bodies, data.window, joints, seen

    def backbone(self) -> Any:
        """The backbone, a module with the contract of `mmcl_jax.models`. Raises: ConfigError, LayoutError."""
        name = self.config.model.backbone
        if name not in BACKBONES:
            raise ConfigError(f"model.backbone {name!r} is not one of {', '.join(BACKBONES)}")
        make = BACKBONES[name]
        return make(len(self.class_names), self.info.skeleton_layout, self.info.num_coordinates, self.config.model)

    def template(self) -> dict:
        """Shapes and types of the backbone's variables."""
        shape = (1, *self.clip_shape)
        return variable_shapes(self.backbone(), shape)

    def to_json(self) -> dict[str, Any]:
        """The dict that `from_json` reads."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"version": _VERSION, **own, "config": self.config.to_json(), "info": self.info.to_json()}

    @classmethod
    def from_json(cls, stored: Any, where: str) -> "Description":
        """Reads the dict of `to_json`, checked. Raises: DescriptionError, naming `where`."""
        if not isinstance(stored, dict) or stored.get("version") != _VERSION:
            seen = stored.get("version") if isinstance(stored, dict) else type(stored).__name__
            raise DescriptionError(f"{where}: describes no model of version {_VERSION}, but {seen!r}")
        try:
            description = cls(
                config=Config.from_json(stored["config"]),
                info=DatasetInfo.from_json(stored["info"]),
                bodies=stored["bodies"],
                centered=stored["centered"],
                protocol=stored["protocol"],
                training_clips=stored["training_clips"],
                **{name: float(stored[name]) for name in _NUMBERS if name in stored},  # which later versions added
            )
        except (AttributeError, IndexError, KeyError, MMCLError, RecursionError, TypeError, ValueError) as error:
            raise DescriptionError(
                f"{where}: incomplete, wrong or of a newer version ({error}); restore a copy, or update mmcl_jax"
            ) from error
        kinds = {"bodies": int, "centered": bool, "protocol": str, "training_clips": int}
        wrong = [name for name, kind in kinds.items() if type(getattr(description, name)) is not kind]
        wrong += [name for name in _NUMBERS if not 0 <= getattr(description, name) < np.inf]
        wrong = wrong or [name for name in ("bodies", "temperature") if not getattr(description, name) > 0]
        if wrong:
            name = wrong[0]
            raise DescriptionError(f"{where}: {name} {getattr(description, name)!r}; restore it from a copy")
        return description


def variable_shapes(backbone: Any, clips: tuple[int, ...]) -> dict:
    """Shapes and types of a backbone's variables for clips `[N, M, T, V, C]` of that shape."""
    clip = jax.ShapeDtypeStruct(clips, np.float32)
    shapes: Any = jax.eval_shape(functools.partial(backbone.init, train=False), jax.random.key(0), clip)
    return {"batch_stats": {}, **shapes}  # a backbone may keep no statistics


def count_bodies(backbone: Any, variables: Mapping, joint_shape: tuple[int, ...]) -> int | None:
    """M of the clips that a backbone with these variables was trained on, from the width of its first batch norm.

    None for a backbone without `data_bn`, whose variables fit any M. `joint_shape` is (V, C) of the clips.
    """
    if "data_bn" not in variables["params"]:
        return None
    one = variable_shapes(backbone, (1, 1, 8, *joint_shape))["params"]["data_bn"]["bias"].shape[0]
    return variables["params"]["data_bn"]["bias"].shape[0] // one


def describe(config: Config, records: Records) -> Description:
    """The description of a model that `config` trains on `records`. Raises: RecordsError.

    A model that random cameras train takes joints of a picture, even if its records hold joints in space.
    """
    protocol, data = config.data.protocol, config.data
    info = dataclasses.replace(records.info, class_names=records.class_names(protocol), protocols={})
    frame_rate = data.frame_rate or info.frame_rate
    sees_pictures = data.camera.views != "none" and info.num_coordinates == 3
    if sees_pictures:
        info = dataclasses.replace(info, channels=("x", "y", CONFIDENCE), units="pixels")
    return Description(
        config=config,
        info=info,
        bodies=records.max_bodies,
        centered=not sees_pictures and _are_centered(records),
        protocol=protocol,
        training_clips=len(records.select(protocol, "train", config.data.validation_subjects)),
        frame_rate=frame_rate,
        window_seconds=data.window / frame_rate if frame_rate and data.sampling == "paced" else 0.0,
    )


def _are_centered(records: Records) -> bool:
    """Whether the center joint is at the origin in the first frame of every clip tried."""
    rows = np.unique(np.linspace(0, len(records) - 1, _TRIED_CLIPS).astype(int))
    centre, coordinates = records.info.skeleton_layout.centre, records.info.num_coordinates
    return all(not records.skeleton(row)[0, 0, centre, :coordinates].any() for row in rows)


def write_description(workdir: pathlib.Path, description: Description) -> None:
    """Writes `model.json` into the workdir, whole or not at all."""
    write_whole(workdir / DESCRIPTION, json.dumps(description.to_json(), indent=1, ensure_ascii=False) + "\n")


def read_description(workdir: pathlib.Path) -> Description:
    """The description of the model in a workdir.

    A workdir older than `model.json` is described by its config and the records that this names.

    Raises: WorkdirError, DescriptionError, RecordsError, ConfigError: naming what is missing.
    """
    path = workdir / DESCRIPTION
    if path.exists():
        return Description.from_json(read_workdir_json(path), str(path))
    config = workdir / "config.json"
    if not config.exists():
        raise WorkdirError(
            f"{workdir}: neither {DESCRIPTION} nor config.json in it, so it is no model, or nothing says which clips "
            "and classes the model has. Name the workdir of a run or a bundle, or import the weights again with "
            "--config, and with --records or with --layout and --class_names"
        )
    stored = read_workdir_json(config)
    if isinstance(stored, dict):
        stored.pop("clips", None)
    try:
        read = Config.from_json(stored)
    except ConfigError as error:
        raise ConfigError(
            f"{config}: not the config of a run ({error}); name the workdir of a run, or a bundle"
        ) from error
    try:
        return describe(read, Records(read.data.records))
    except RecordsError as error:
        raise RecordsError(
            f"{workdir}: older than {DESCRIPTION}, so its records describe the model, and these cannot be read: {error}"
        ) from error


def transform_options(config: Config) -> TransformOptions:
    """What the config does to a clip before the model sees it."""
    data = config.data
    return TransformOptions(
        sampling=data.sampling,
        window=data.window,
        crop_interval=data.crop_interval,
        test_crop=data.test_crop,
        rotation=data.rotation,
        centre=data.centre,
        absent_body=data.absent_body,
        stream=data.stream,
        augmentation=AugmentationOptions(
            flip=data.flip, joint_dropout=data.joint_dropout, noise=data.noise, speed_change=data.speed_change
        ),
        pace=data.pace,
        camera=data.camera,
    )


def check_classes(description: Description, params: Mapping, where: str) -> None:
    """Raises DescriptionError if the parameters have another number of classes than the description names."""
    if count_classes(params) != len(description.class_names):
        raise DescriptionError(
            f"{where}: {len(description.class_names)} class names for a model of {count_classes(params)} classes"
        )
