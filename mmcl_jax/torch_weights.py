"""PyTorch checkpoints to workdirs, and workdirs to PyTorch.

python -m mmcl_jax.torch_weights import FILE.pt DIR     a published checkpoint becomes a workdir
python -m mmcl_jax.torch_weights export FILE.pt DIR     a workdir's newest checkpoint becomes a state dict
"""

import argparse
import dataclasses
import json
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping

import numpy as np
from absl import logging

from mmcl_jax import checkpoints, config_files
from mmcl_jax.config import Config, get_config
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.data.records import CHANNELS, DatasetInfo, Records
from mmcl_jax.description import Description, check_classes, describe, write_description
from mmcl_jax.models.mmcl import BACKBONE
from mmcl_jax.pytorch import state_dicts, weight_files
from mmcl_jax.pytorch.published import PUBLISHED, convert, entries_of
from mmcl_jax.pytorch.state_dicts import COUNTER, Entry, TorchWeightsError
from mmcl_jax.run_log import IMPORTED, LOCK, WorkdirError, read_workdir_config
from mmcl_jax.runtime.errors import plain_errors
from mmcl_jax.runtime.files import read_text, whole_file
from mmcl_jax.runtime.locks import exclusive
from mmcl_jax.runtime.scratch import scratch_folder
from mmcl_jax.runtime.words import counted

_MMCL = "mmcl"


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    options = _parser().parse_args(arguments)
    logging.set_verbosity(logging.ERROR)  # Orbax warns although nothing is wrong
    with plain_errors("interrupted"):
        if options.direction == "import":
            clips = Clips(options.config, options.records, options.layout, options.class_names, options.channels)
            import_checkpoint(options.file, options.workdir, options.model, clips=clips, verbose=options.verbose)
        else:
            export_checkpoint(
                options.file, options.workdir, options.model, overwrite=options.overwrite, verbose=options.verbose
            )


def import_checkpoint(
    file: pathlib.Path,
    workdir: pathlib.Path,
    model: str | None = None,
    *,
    clips: "Clips | None" = None,
    verbose: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Makes a workdir, which `mmcl_jax.main --mode=eval` evaluates, from a published model's checkpoint.

    The workdir appears whole or not at all. In addition to the checkpoint it holds `imported.json`: where the weights
    came from, the model's sizes, and the counters of PyTorch's batch norms, which Flax does not keep.

    Args:
      file: the checkpoint, see `weight_files.read_state_dict`.
      workdir: a folder that is empty or does not exist yet.
      model: key of `published.PUBLISHED`; None: it is recognized by its keys.
      clips: what the model's clips and classes are. With it, the workdir is complete: `mmcl_jax.load_model` loads it.
      verbose: say which tensor became which leaf.
      say: is called with messages about what was done.

    Raises:
      TorchWeightsError, WorkdirError, CheckpointError, RecordsError, LayoutError, ConfigError, OSError.
      LockedError: another process imports or trains in the workdir.
    """
    _check_empty(workdir)
    lock = exclusive(workdir / LOCK, what=f"importing weights into {workdir}", remedy="name another folder")
    with scratch_folder(workdir.with_name(f".{workdir.name}.import")) as scratch:
        with lock:
            _check_empty(workdir)
            told = _import(file, scratch / "workdir", workdir, model, clips, verbose, say)
        try:
            (scratch / "workdir").replace(workdir)
        except OSError as error:  # another process put something there, or the disk is full
            raise WorkdirError(f"{workdir}: cannot be written ({error.strerror}); name another folder") from error
    for line in told:
        say(line)


def _check_empty(workdir: pathlib.Path) -> None:
    """Raises WorkdirError if `workdir` holds anything but a lock."""
    if workdir.exists() and (not workdir.is_dir() or any(path.name != LOCK for path in workdir.iterdir())):
        raise WorkdirError(f"{workdir}: not an empty folder; name another, or remove it")


def _import(
    file: pathlib.Path,
    partial: pathlib.Path,
    workdir: pathlib.Path,
    model: str | None,
    clips: "Clips | None",
    verbose: bool,
    say: Callable[[str], None],
) -> list[str]:
    """Writes the files of the workdir into `partial`; returns what there is to say once they are in place."""
    stored = weight_files.read_state_dict(file, say)
    state_dict = state_dicts.unwrapped(stored)
    if stored.keys() != state_dict.keys():
        say(f"{file}: dropped {next(iter(stored)).removesuffix(next(iter(state_dict)))!r} before every name")
    try:
        recognised = convert(state_dict, model)
        counters = _counters(state_dict, recognised.entries)
    except TorchWeightsError as error:
        raise TorchWeightsError(f"{file}: {error}") from error
    sizes = recognised.sizes
    description = {
        "file": str(file),
        "published": recognised.name,
        "model": {
            "backbone": PUBLISHED[recognised.name].backbone,
            "base_channels": sizes["base_channels"],
        },
        "sizes": sizes,
        "num_batches_tracked": counters,
    }
    described = None if clips is None else clips.describe(description["model"], sizes, recognised.variables, say)
    checkpoints.save_variables(partial, recognised.variables)
    (partial / IMPORTED).write_text(json.dumps(description, indent=2) + "\n")
    if described is not None:
        write_description(partial, described)
        complete = json.dumps(described.config.to_json(), indent=2, sort_keys=True)
        (partial / "config.json").write_text(complete + "\n")
    if verbose:
        _say_mapping(state_dict, recognised.entries, say)
    parameters = sum(np.size(state_dict[entry.key]) for entry in recognised.entries if entry.collection == "params")
    place = shlex.quote(f"--workdir={workdir}")
    return [
        f"{recognised.name}: {sizes['num_classes']} classes, {sizes['joints']} joints, "
        f"{counted(sizes['bodies'], 'body', 'bodies')}, {sizes['channels']} channels a joint, width "
        f"{sizes['base_channels']}; {len(state_dict)} tensors, {parameters} parameters",
        f"written to {workdir}. Load it with mmcl_jax.load_model, or evaluate it:\n"
        f"  python -m mmcl_jax.main --mode=eval {place} --config.data.records=RECORDS"
        if described is not None
        else f"written to {workdir}. Evaluate it with the config of the dataset and stream that it was trained on:\n"
        "  python -m mmcl_jax.main --mode=eval --config=configs/DATASET.py:STREAM "
        f"--config.model.backbone={description['model']['backbone']} "
        f"--config.model.base_channels={sizes['base_channels']} {place}\n"
        "For mmcl_jax.load_model, import it with --config, and with --records or with --layout and --class_names",
    ]


@dataclasses.dataclass(frozen=True)
class Clips:
    """What the clips and classes of imported weights are, which a state dict does not say; None or empty: not given.

    Attributes:
      config: the config file of the dataset and stream, as `--config` of the main command takes it.
      records: a records folder of the dataset: layout, channels, units and class names are those of its clips.
      layout: without records, a key of `mmcl_jax.data.layouts.LAYOUTS`.
      class_names: without records, a file with one name per line; None: 'class 0', 'class 1', ...
      channels: without records, the channels of a joint; None: x, y, z for three.
    """

    config: str | None = None
    records: pathlib.Path | None = None
    layout: str | None = None
    class_names: pathlib.Path | None = None
    channels: str | None = None

    def __post_init__(self):
        given = [name for name in ("layout", "class_names", "channels") if getattr(self, name) is not None]
        if self.records is not None and given:
            raise TorchWeightsError(f"--records says what --{given[0]} says; give one of the two")

    @property
    def is_empty(self) -> bool:
        """Whether nothing was given."""
        return self == Clips()

    def describe(self, model: dict, sizes: dict, variables: dict, say: Callable[[str], None]) -> Description | None:
        """The description of the model; None if nothing was given.

        Raises: TorchWeightsError, RecordsError, LayoutError, ConfigError.
        """
        if self.is_empty:
            return None
        if self.records is None and self.layout is None:
            raise TorchWeightsError("--layout is missing: which joints are these weights for? Or give --records")
        overrides = {"model.backbone": model["backbone"], "model.base_channels": model["base_channels"]}
        untyped = get_config() if self.config is None else config_files.load(self.config)
        with untyped.unlocked():
            untyped.update_from_flattened_dict(overrides)
        if self.config is None:
            say("NOTE: no --config; the test transform is that of mmcl_jax/config.py, the joint stream of NTU RGB+D")
        config = Config.of(untyped)
        if self.records is not None:
            records = Records(self.records)
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, records=str(self.records)))
            described = dataclasses.replace(describe(config, records), training_clips=0)
        else:
            described = Description(config, self._info(sizes, say), sizes["bodies"], centered=self.layout == "ntu")
        described = dataclasses.replace(described, bodies=sizes["bodies"])
        expected = described.info.joint_shape
        if expected != (sizes["joints"], sizes["channels"]):
            raise TorchWeightsError(
                f"the weights are for {sizes['joints']} joints with {sizes['channels']} channels, --layout or "
                f"--records says {expected[0]} with {expected[1]}"
            )
        check_classes(described, variables["params"][BACKBONE], "--class_names or --records")
        return described

    def _info(self, sizes: dict, say: Callable[[str], None]) -> DatasetInfo:
        if self.class_names is None:
            names = [f"class {label}" for label in range(sizes["num_classes"])]
            say("NOTE: no --class_names; classes are called 'class 0', 'class 1', ...")
        else:
            try:
                names = [line.strip() for line in read_text(self.class_names).splitlines()]
            except (OSError, ValueError) as error:
                raise TorchWeightsError(
                    f"{self.class_names}: not a readable list of class names ({error}); give one name per line"
                ) from error
            names = names[:-1] if names and not names[-1] else names
        channels = tuple(self.channels.split(",")) if self.channels else CHANNELS[0]
        metric = self.layout in ("ntu", "nw_ucla", "utd_mhad")
        return DatasetInfo(
            dataset=self.layout or "",
            layout=self.layout or "",
            units="metres" if metric else "as in training, unknown",
            class_names=tuple(names),
            preprocessing="imported weights",
            channels=channels,
        )


def export_checkpoint(
    file: pathlib.Path,
    workdir: pathlib.Path,
    model: str | None = None,
    *,
    overwrite: bool = False,
    verbose: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Writes a workdir's newest checkpoint as a PyTorch state dict, keys in PyTorch's order.

    Args:
      file: `.pt` or `.pth`, written by `torch.save` (which needs torch), or `.npz`.
      workdir: of a run, or of an import.
      model: None: the skeleton model; 'mmcl': FAM and FRM too, as the released code has them.
      overwrite: whether an existing file may be replaced.
      verbose: say which leaf became which tensor.
      say: is called with messages about what was done.

    Raises:
      TorchWeightsError, WorkdirError, CheckpointError, OSError.
    """
    if file.is_dir():
        raise TorchWeightsError(f"{file}: a folder; the file to write comes first: export FILE.pt WORKDIR")
    if file.suffix not in (".pt", ".pth", ".npz"):
        raise TorchWeightsError(f"{file}: the suffix {file.suffix!r} is not one of .pt, .pth, .npz")
    if file.exists() and not overwrite:
        raise TorchWeightsError(f"{file}: exists; name another file, or add --overwrite")
    imported = (workdir / IMPORTED).exists()
    description = read_workdir_config(workdir / (IMPORTED if imported else "config.json"))
    backbone = description["model"]["backbone"]
    step, variables = checkpoints.read_variables(workdir)
    name = model or backbone
    try:
        variables = _exported_part(name, backbone, variables)
        entries = entries_of(name, variables)
        state_dict = state_dicts.to_torch(variables, entries)
    except TorchWeightsError as error:
        raise TorchWeightsError(f"{workdir}: {error}") from error
    # Every step of training counts in every batch norm; imported weights keep their own counts.
    counted = description["num_batches_tracked"] if imported else None
    for entry in entries:
        if entry.collection == COUNTER:
            if counted is not None and entry.key not in counted:
                del state_dict[entry.key]
            else:
                state_dict[entry.key] = np.array(step if counted is None else counted[entry.key], np.int64)
    _write(file, state_dict)
    if verbose:
        _say_mapping(state_dict, entries, say)
    parameters = sum(np.size(state_dict[entry.key]) for entry in entries if entry.collection == "params")
    say(f"{name}, step {step} of {workdir}: {len(state_dict)} tensors, {parameters} parameters, written to {file}")


def _exported_part(name: str, backbone: str, variables: dict) -> dict:
    """The variables that the published model `name` has. Raises: TorchWeightsError."""
    if name not in PUBLISHED:
        raise TorchWeightsError(f"no mapping for {name!r}, only for {', '.join(PUBLISHED)}")
    published = PUBLISHED[name]
    if published.backbone != backbone:
        raise TorchWeightsError(
            f"its backbone is {backbone}, that of {name} is {published.backbone}; leave --model out"
        )
    if name != _MMCL:
        return {kind: tree[BACKBONE] for kind, tree in variables.items()}
    parts = (BACKBONE, "alignment", "refinement")
    missing = [part for part in parts if part not in variables["params"]]
    if missing:
        raise TorchWeightsError(f"holds no {' and no '.join(missing)} module; leave --model out: the skeleton model")
    matrices = variables["params"]["refinement"]["matrices"].shape
    if len(matrices) != 2 or matrices[0] != 2:
        raise TorchWeightsError(
            f"its refinement matrices are {matrices}; the released MMCL has two diagonal ones (refinement_terms=2, "
            "refinement_matrices=diagonal). Leave --model out: the skeleton model"
        )
    return {kind: {part: tree[part] for part in parts if part in tree} for kind, tree in variables.items()}


def _counters(state_dict: Mapping[str, np.ndarray], entries: list[Entry]) -> dict[str, int]:
    """The batch norms' counters that the state dict has. Raises: TorchWeightsError where one is no integer."""
    counters = {
        entry.key: state_dict[entry.key] for entry in entries if entry.collection == COUNTER and entry.key in state_dict
    }
    wrong = [key for key, value in counters.items() if value.shape != () or not np.issubdtype(value.dtype, np.integer)]
    if wrong:
        raise TorchWeightsError(
            f"misshapen: {wrong[0]}, expected one integer ({len(wrong)} of {len(counters)} are none)"
        )
    return {key: int(value) for key, value in counters.items()}


def _write(file: pathlib.Path, state_dict: dict[str, np.ndarray]) -> None:
    with whole_file(file) as unfinished:
        if file.suffix == ".npz":
            with unfinished.open("wb") as stream:
                np.savez(stream, **state_dict)  # pyright: ignore[reportArgumentType]  a name could be an option
        else:
            try:
                import torch
            except ImportError as error:
                raise TorchWeightsError(f"{file}: needs PyTorch; pip install torch, or name an .npz") from error
            torch.save({key: torch.tensor(value) for key, value in state_dict.items()}, unfinished)


def _say_mapping(state_dict: Mapping[str, np.ndarray], entries: list[Entry], say: Callable[[str], None]) -> None:
    for entry in entries:
        if entry.key in state_dict:
            place = "/".join((entry.collection, *entry.path))
            if entry.index:
                place += "[" + ", ".join(map(_shown, entry.index)) + "]"
            say(f"{entry.key} {list(np.shape(state_dict[entry.key]))} <-> {place}")


def _shown(index: int | slice) -> str:
    if isinstance(index, slice):
        return ":" if index == slice(None) else f"{index.start}:{index.stop}"
    return str(index)


def _parser() -> argparse.ArgumentParser:
    module = sys.argv[0].endswith(".py")  # else the console script
    parser = argparse.ArgumentParser(
        prog="python -m mmcl_jax.torch_weights" if module else None,
        description="PyTorch checkpoints to workdirs, and workdirs to PyTorch.",
    )
    directions = parser.add_subparsers(dest="direction", required=True)
    published = ", ".join(PUBLISHED)
    importing = directions.add_parser(
        "import", help="make a workdir, ready for --mode=eval, from a published checkpoint"
    )
    importing.add_argument("file", type=pathlib.Path, help="a checkpoint of PyTorch (.pt, .pth), or .npz")
    importing.add_argument("workdir", type=pathlib.Path, help="a new folder")
    about = importing.add_argument_group("what the model's clips and classes are, so that mmcl_jax.load_model loads it")
    about.add_argument("--config", metavar="FILE", help="of dataset and stream: configs/ntu120.py:xsub,bone")
    about.add_argument("--records", type=pathlib.Path, metavar="DIR", help="records of the dataset; or the next three:")
    about.add_argument("--layout", choices=LAYOUTS, metavar="NAME", help=f"of the joints: {', '.join(LAYOUTS)}")
    about.add_argument("--class_names", type=pathlib.Path, metavar="FILE", help="one name per line, by label")
    about.add_argument("--channels", metavar="x,y,...", help="of a joint; default: x,y,z")
    importing.add_argument("--model", choices=PUBLISHED, metavar="NAME", help=f"{published}; default: by the keys")
    exporting = directions.add_parser("export", help="write a workdir's newest checkpoint as a state dict")
    exporting.add_argument("file", type=pathlib.Path, help="the file to write: .pt, .pth or .npz")
    exporting.add_argument("workdir", type=pathlib.Path, help="of a run, or of an import")
    exporting.add_argument("--model", choices=[_MMCL], help="FAM and FRM too; default: only the skeleton model")
    exporting.add_argument("--overwrite", action="store_true", help="replace an existing file")
    for direction in (importing, exporting):
        direction.add_argument("--verbose", action="store_true", help="print which tensor is which leaf")
    return parser


if __name__ == "__main__":
    main()
