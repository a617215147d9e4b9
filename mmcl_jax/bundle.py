"""A bundle: a trained model in a folder that anyone can load, by the conventions of the Hugging Face Hub.

    model.safetensors   the variables of the skeleton model and, by choice, FAM and FRM
    config.json         everything that prediction needs beside them, and digests of both files
    README.md           the model card: training data, measured accuracy, classes, licenses, how to use it

It holds no pickle and names no code. A bundle with one bit changed is refused.
"""

import dataclasses
import datetime
import hashlib
import json
import pathlib
import re
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import mmcl_jax
from mmcl_jax.description import Description
from mmcl_jax.models.mmcl import BACKBONE
from mmcl_jax.runtime.errors import MMCLError
from mmcl_jax.runtime.files import check_regular
from mmcl_jax.runtime.words import counted

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
DTYPES = ("float32", "float16")
_FORMAT = "mmcl_jax bundle 1"
_LARGEST_CONFIG = 1 << 26  # bytes
# Bundles that come with the package.
BOX = pathlib.Path(__file__).parent / "box"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class BundleError(MMCLError, ValueError):
    """A folder that is no bundle, a damaged one, or one that cannot be written. The message names the file."""


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where the weights of a bundle come from, for its card.

    Attributes:
      step: training steps behind the weights.
      accuracy: lines such as 'top-1 93.3 % on the 464 test clips of protocol xview', with how and when it was measured.
      license: of the weights and of the data that they were trained on; empty: not stated.
    """

    step: int = 0
    accuracy: tuple[str, ...] = ()
    license: str = ""


def write_bundle(
    out: pathlib.Path,
    description: Description,
    variables: Mapping,
    provenance: Provenance,
    dtype: str = "float32",
) -> None:
    """Writes the folder `out`, whole or not at all.

    Args:
      out: a folder that is empty or does not exist yet.
      description: of the model.
      variables: of `MMCL`: `params` and `batch_stats`, each with `BACKBONE` and, by choice, FAM and FRM.
      provenance: for the card.
      dtype: 'float32', or 'float16', which takes half the room and is read back as float32.

    Raises: BundleError, OSError.
    """
    from safetensors.numpy import save

    if dtype not in DTYPES:
        raise BundleError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out}: not an empty folder; name another, or remove it")
    leaves: dict[str, Any] = flatten_dict({kind: dict(variables[kind]) for kind in ("params", "batch_stats")}, sep="/")
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()}
    stored = {name: array.astype(dtype) if array.dtype.kind == "f" else array for name, array in sorted(arrays.items())}
    largest = max((float(np.abs(array).max()) for array in arrays.values() if array.dtype.kind == "f"), default=0.0)
    if largest > np.finfo(dtype).max:
        raise BundleError(f"a weight of {largest:g} is beyond {dtype}; write the bundle in float32")
    weights = save(stored, metadata={"format": "flax"})
    config = {
        "format": _FORMAT,
        "mmcl_jax": mmcl_jax.__version__,
        "step": provenance.step,
        "license": provenance.license,
        "accuracy": list(provenance.accuracy),
        "model": description.to_json(),
        "sha256": {WEIGHTS: hashlib.sha256(weights).hexdigest()},
    }
    config["sha256"][CONFIG] = _config_digest(config)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        partial = pathlib.Path(temporary) / "bundle"
        partial.mkdir()
        (partial / WEIGHTS).write_bytes(weights)
        (partial / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (partial / CARD).write_text(_card(out.name, description, provenance, arrays), encoding="utf-8")
        partial.replace(out)


def is_bundle(folder: pathlib.Path) -> bool:
    """Whether a folder holds a bundle, or what is left of one."""
    return (folder / WEIGHTS).exists()


def read_bundle(folder: pathlib.Path) -> tuple[Description, dict, int]:
    """Description, variables of the skeleton model (float32) and step of a bundle. Raises: BundleError."""
    description, variables, step = read_all(folder)
    return description, {kind: tree[BACKBONE] for kind, tree in variables.items()}, step


def read_all(folder: pathlib.Path) -> tuple[Description, dict, int]:
    """As `read_bundle`, with the variables of `MMCL`: `BACKBONE` and, where the bundle has them, FAM and FRM."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    config = _read_config(folder / CONFIG)
    path = folder / WEIGHTS
    try:
        check_regular(path)
        weights = path.read_bytes()
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); get the bundle again") from error
    if hashlib.sha256(weights).hexdigest() != config["sha256"].get(WEIGHTS):
        raise BundleError(f"{path}: not the weights that were written, their SHA-256 differs; get the bundle again")
    description = Description.from_json(config["model"], str(folder / CONFIG))
    try:
        arrays = load(weights)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: not a safetensors file ({error}); get the bundle again") from error
    leaves = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in arrays.items()}
    tree = unflatten_dict(leaves, sep="/")
    variables = {kind: tree.get(kind, {}) for kind in ("params", "batch_stats")}
    if BACKBONE not in variables["params"]:
        raise BundleError(f"{path}: holds no skeleton model (no params/{BACKBONE}); get the bundle again")
    variables["batch_stats"].setdefault(BACKBONE, {})
    return description, variables, config["step"]


def read_provenance(folder: pathlib.Path) -> Provenance:
    """What a bundle states about its weights. Raises: BundleError."""
    config = _read_config(folder / CONFIG)
    return Provenance(config["step"], tuple(map(str, config["accuracy"])), str(config["license"]))


def boxed() -> list[str]:
    """The names of the bundles that come with the package."""
    return sorted(path.name for path in BOX.glob("*") if path.is_dir())


def locate(path: str | pathlib.Path) -> pathlib.Path:
    """The folder of a model: `path`; the bundle of that name that comes with the package; or, for the name 'user/name',
    the bundle of that name from the Hugging Face Hub.

    Raises: BundleError if there is no such folder and no such bundle.
    """
    folder = pathlib.Path(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise BundleError(f"{folder}: a file; name the folder of a bundle, a run or an import")
    names = boxed()
    if isinstance(path, str) and path in names:
        return BOX / path
    if not isinstance(path, str) or not _HUB_NAME.fullmatch(path):
        raise BundleError(
            f"{folder}: no such folder; name that of a bundle, a run or an import, or a model that comes with the "
            f"package ({', '.join(names)})"
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise BundleError(
            f"{path}: no such folder; to look for it on the Hugging Face Hub, pip install huggingface_hub"
        ) from error
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(path, allow_patterns=[WEIGHTS, CONFIG, CARD]))
    except Exception as error:  # of the network, the hub or its cache
        brief = " ".join(str(error).split())[:300]
        raise BundleError(
            f"{path}: no such folder, and no bundle that the Hugging Face Hub or its cache gives ({brief})"
        ) from error


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    """Contents of a bundle's `config.json`, whose digest is right. Raises: BundleError."""
    try:
        check_regular(path)
        with path.open("rb") as file:
            config = json.loads(file.read(_LARGEST_CONFIG).decode())
        if not isinstance(config, dict) or config.get("format") != _FORMAT:
            seen = config.get("format") if isinstance(config, dict) else type(config).__name__
            raise BundleError(f"{path}: format {seen!r}, expected {_FORMAT!r}: no bundle, or one of another version")
        digests = config["sha256"]
        if digests[CONFIG] != _config_digest(config):
            raise BundleError(f"{path}: not what was written, its SHA-256 differs; get the bundle again")
        config["step"] = int(config["step"])
    except BundleError:
        raise
    except (OSError, RecursionError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: unreadable ({error!r}); get the bundle again") from error
    return config


def _config_digest(config: dict[str, Any]) -> str:
    """SHA-256 of a config without its own digest."""
    digests = {name: digest for name, digest in config["sha256"].items() if name != CONFIG}
    text = json.dumps({**config, "sha256": digests}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _card(name: str, description: Description, provenance: Provenance, arrays: Mapping[str, np.ndarray]) -> str:
    """The model card: README.md with the metadata block that the Hugging Face Hub reads."""
    info, config = description.info, description.config
    modules = sorted({path.split("/")[1] for path in arrays if path.startswith("params/")} - {BACKBONE})
    parameters = sum(array.size for path, array in arrays.items() if path.startswith(f"params/{BACKBONE}/"))
    clips = f"{counted(description.training_clips, 'clip')}, " if description.training_clips else ""
    classes = "\n".join(f"{label}. {_inline(name)}" for label, name in enumerate(description.class_names))
    measured = "\n".join(f"- {_inline(line)}" for line in provenance.accuracy) or "- not measured"
    return f"""---
library_name: mmcl_jax
pipeline_tag: video-classification
tags:
- skeleton-based-action-recognition
- jax
- flax
license: other
license_name: {json.dumps(_inline(provenance.license) or "not stated")}
---

# {_inline(name)}

A skeleton action recognition model: {config.model.backbone}, {parameters:,} parameters, {config.data.stream} stream.

## Use

```python
import mmcl_jax

model = mmcl_jax.load_model("PATH/OF/THIS/FOLDER")
prediction = model.predict(skeleton)  # NumPy [T, V, C] or [T, M, V, C], or a list of clips
prediction.top(3)
```

- Joints, in this order: {", ".join(info.skeleton_layout.joints)}.
- Channels of a joint: {", ".join(info.channels)}; units: {_inline(info.units)}.
- At most {counted(description.bodies, "body", "bodies")} in a training clip.

## Training

- Data: {_inline(info.dataset)}, {clips}protocol {_inline(description.protocol) or "unknown"}.
- Preprocessing: {_inline(info.preprocessing)}.
- {provenance.step} training steps; written by mmcl_jax {mmcl_jax.__version__} on {datetime.date.today().isoformat()}.
- Other modules: {", ".join(modules) or "none"}.

## Accuracy

{measured}

## License

{provenance.license or "Not stated. The license of the training data may restrict the use of these weights."}

## Classes

{classes}
"""


def _inline(text: str) -> str:
    """Text for one line of Markdown."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()))
