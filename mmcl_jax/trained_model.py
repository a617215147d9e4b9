"""A trained model that stands by itself: `load_model(PATH)`, then `predict` on raw clips. It needs no records.

    model = mmcl_jax.load_model("workdir/nw_ucla_joint")
    prediction = model.predict(skeleton)
    prediction.top(3)

A clip is padded to one of a few lengths and transformed by itself; the transformed clips, which all have the same
length, reach the model in batches of a few sizes. So few programs are compiled, however many lengths occur.
"""

import dataclasses
import functools
import pathlib
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import jax
import numpy as np
from absl import logging

from mmcl_jax import bundle, checkpoints
from mmcl_jax.data.layouts import Layout
from mmcl_jax.data.records.checks import skeleton_fault
from mmcl_jax.data.transforms import Transform, TransformOptions, absent_stays_zero, make_transform
from mmcl_jax.description import Description, check_classes, read_description, transform_options
from mmcl_jax.models.bodies import fit_bodies
from mmcl_jax.predictor import PredictionError, Predictor
from mmcl_jax.runtime.backend import HASTY, compilation_line, gpu_compiler_options
from mmcl_jax.runtime.words import counted

# Clips are padded with zeros to the shortest of these lengths that holds them; to a multiple of the last beyond that.
LENGTHS = tuple(64 * 2**power for power in range(9))
# Clips that reach the model at once; the rest of a list is filled up to one of these.
BATCHES = (1, 8, 32)
_SINGLY = 3  # clips that are classified one by one, with the program that a single clip has compiled
_UNUSED_KEY = functools.partial(jax.random.key, 0)  # test transforms draw nothing


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says about one clip.

    Attributes:
      name: of the clip.
      class_names: K of them, by label.
      logits: float32 `[K]`.
      temperature: by which the logits are divided before they become probabilities; 1, unless the model is calibrated.
    """

    name: str
    class_names: tuple[str, ...]
    logits: np.ndarray
    temperature: float = 1.0

    @property
    def probabilities(self) -> np.ndarray:
        """float32 `[K]`, the softmax of the logits; their sum is 1."""
        shifted = np.exp((self.logits.astype(np.float64) - self.logits.max()) / self.temperature)
        return (shifted / shifted.sum()).astype(np.float32)

    @property
    def label(self) -> int:
        """Number of the most probable class, from 0."""
        return int(self.logits.argmax())

    @property
    def action(self) -> str:
        """Name of the most probable class."""
        return self.class_names[self.label]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The `count` most probable classes, fewer if the model has fewer: (name, probability), the best first."""
        probabilities = self.probabilities
        best = np.argsort(-probabilities, kind="stable")[:count]
        return [(self.class_names[label], float(probabilities[label])) for label in best]

    def __str__(self) -> str:
        best = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in self.top(3))
        return f"{self.name}: {best}"


class TrainedModel:
    """A skeleton model with its weights. Any number of threads may predict at once.

    Attributes:
      description: its clips, classes and configuration.
      variables: `params` and `batch_stats` of the backbone.
      step: training steps behind the weights.
      path: where it was loaded from.
      announce: gets a line whenever compilation begins that takes long; by default, the log gets it.
    """

    def __init__(self, description: Description, variables: dict, *, step: int = 0, path: str = "model"):
        """Builds the model; nothing is compiled yet.

        Raises: DescriptionError, PredictionError, ConfigError, LayoutError if description and variables do not fit.
        """
        self.description, self.variables, self.step, self.path = description, variables, step, path
        check_classes(description, variables["params"], path)
        self._backbone = description.backbone()
        expected, found = _shapes(description.template()), _shapes(variables)
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                raise PredictionError(
                    f"{path}: {name} is {found.get(name, 'missing')}, the model that it describes has "
                    f"{expected.get(name, 'none')}; weights and description are of different models"
                )
        data = description.config.data
        self._predictor = Predictor(self._backbone, absent_stays_zero(data.absent_body, data.sampling))
        self._storage = np.dtype(data.storage)
        self.announce: Callable[[str], None] = functools.partial(logging.info, "%s")
        self._lock = threading.RLock()
        self._programs: dict[Any, Any] = {}

    @property
    def layout(self) -> Layout:
        """The joints of its clips, and their order."""
        return self.description.info.skeleton_layout

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels of a joint: x, y, z; or x, y and a confidence."""
        return self.description.info.channels

    @property
    def units(self) -> str:
        """The units of the coordinates."""
        return self.description.info.units

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names, by label."""
        return self.description.class_names

    @property
    def compilations(self) -> int:
        """How many programs have been compiled up to now."""
        return len(self._programs)

    @overload
    def predict(self, skeleton: np.ndarray, names: str | None = None) -> Prediction: ...
    @overload
    def predict(self, skeleton: Sequence[np.ndarray], names: Sequence[str] | None = None) -> list[Prediction]: ...
    def predict(self, skeleton, names=None):
        """Classifies one clip, or a list of clips of any lengths.

        Args:
          skeleton: a NumPy array `[T, V, C]` (one person) or `[T, M, V, C]` of raw coordinates: frames, bodies, joints
            of `layout`, `channels`, in `units`. Bodies that are zero in every frame are absent. Or a list of these.
          names: of the clip, or of the clips, for messages; otherwise clips are numbered from 0.

        Returns: a Prediction, or a list of them in the order of the clips.

        Raises:
          PredictionError: a clip is not one of this model: other joints or channels, no frame, no body, NaN or
            infinite values in any frame, coordinates beyond any person's. It names the clip.
        """
        if isinstance(skeleton, np.ndarray) or hasattr(skeleton, "__array__"):
            return self._predict_list([skeleton], None if names is None else [names])[0]
        return self._predict_list(skeleton, names)

    def warm_up(self, frames: int) -> None:
        """Compiles what a clip of one body and so many frames needs, so that its prediction does not wait for it."""
        self.predict(np.full((frames, *self.description.info.joint_shape), 0.5, np.float32), "a made-up clip")

    def logits(self, clips: Iterable[np.ndarray], names: Sequence[str] | None = None) -> np.ndarray:
        """The logits of a list of clips: float32 `[N, K]`. Arguments and errors are those of `predict`."""
        predictions = self._predict_list(clips, names)
        width = len(self.class_names)
        return np.array([prediction.logits for prediction in predictions], np.float32).reshape(-1, width)

    def _predict_list(self, clips: Iterable[np.ndarray], names: Sequence[str] | None) -> list[Prediction]:
        clips = list(clips)
        if names is not None and len(names) != len(clips):
            raise PredictionError(f"{len(names)} names for {len(clips)} clips")
        names = [f"clip {number}" for number in range(len(clips))] if names is None else list(map(str, names))
        checked = [self._check(clip, name) for clip, name in zip(clips, names, strict=True)]
        logits: dict[int, np.ndarray] = {}
        most_bodies = [max(self.description.bodies, clip.shape[0]) for clip in checked]
        for bodies in sorted(set(most_bodies)):
            numbers = [number for number, most in enumerate(most_bodies) if most == bodies]
            for batch in _batches(numbers):
                logits |= self._batch_logits({number: checked[number] for number in batch}, bodies)
        temperature = self.description.temperature
        return [Prediction(name, self.class_names, logits[number], temperature) for number, name in enumerate(names)]

    def _check(self, clip: np.ndarray, name: str) -> np.ndarray:
        """A clip as `[M, T, V, C]`, without absent bodies. Raises: PredictionError."""
        clip = np.asarray(clip)
        joints, channels = self.description.info.joint_shape
        if clip.ndim == 3:
            clip = clip[:, None]
        if clip.ndim != 4:
            raise PredictionError(
                f"{name}: shape {clip.shape}, expected [T, {joints}, {channels}] or [T, M, {joints}, {channels}]: "
                "frames, bodies, joints, channels; give several clips as a list"
            )
        if clip.shape[2:] != (joints, channels):
            raise PredictionError(
                f"{name}: {clip.shape[2]} joints with {clip.shape[3]} channels, expected {joints} joints with "
                f"{channels} channels ({', '.join(self.channels)}): {', '.join(self.layout.joints)}. "
                "mmcl_jax.data.layouts.joint_mapping makes the joints of one layout from another's"
            )
        fault = skeleton_fault(clip, self.description.info)
        if fault is not None:
            raise PredictionError(f"{name}: {fault}")
        largest = float(np.finfo(self._storage).max)
        if np.abs(clip).max() > largest:
            raise PredictionError(
                f"{name}: a value of {np.abs(clip).max():g}; clips of this model are {self._storage}, up to {largest:g}"
            )
        present = np.flatnonzero(clip.any(axis=(0, 2, 3)))
        return clip[:, present].transpose(1, 0, 2, 3).astype(self._storage)

    def _batch_logits(self, clips: dict[int, np.ndarray], bodies: int) -> dict[int, np.ndarray]:
        """Logits of clips `[M, T, V, C]` that fit one batch, by their numbers."""
        size = min(size for size in BATCHES if size >= len(clips))
        shape = (bodies, *self.description.clip_shape[1:])
        transformed = np.zeros((size, *shape), np.float32)
        counts = np.zeros(size, np.int32)  # of the clips that fill up a batch, 0
        for place, clip in enumerate(clips.values()):
            transformed[place], counts[place] = self._transform(clip, bodies), len(clip)
        key = ("logits", bodies, size)
        compute = self._program(key, functools.partial(self._compile_logits, bodies, size))
        logits = np.asarray(compute(transformed, counts))[: len(clips)]
        return dict(zip(clips, logits, strict=True))

    def _transform(self, clip: np.ndarray, bodies: int) -> np.ndarray:
        """The test transform of one clip, padded with zeros: `[bodies, window, V, C]`."""
        present, frames = clip.shape[:2]
        length = next((length for length in LENGTHS if length >= frames), -(-frames // LENGTHS[-1]) * LENGTHS[-1])
        padded = np.zeros((bodies, length, *clip.shape[2:]), clip.dtype)
        padded[:present, :frames] = clip
        key = ("transform", bodies, length)
        transform = self._program(key, functools.partial(self._compile_transform, padded.shape))
        return np.asarray(transform(padded, np.int32(frames), np.int32(present), _UNUSED_KEY()))

    def _compile_transform(self, shape: tuple[int, ...]) -> Callable[..., jax.Array]:
        transform = test_transform(self.description, shape[1])
        clip, count = jax.ShapeDtypeStruct(shape, self._storage), jax.ShapeDtypeStruct((), np.int32)
        compiled = jax.jit(transform, compiler_options={**HASTY, **gpu_compiler_options()})
        return compiled.lower(clip, count, count, _UNUSED_KEY()).compile()

    def _compile_logits(self, bodies: int, size: int) -> Callable[..., jax.Array]:
        """The program for `size` clips at once: (prepared variables, clips, numbers of bodies) -> logits."""
        which = "a clip" if size == 1 else f"{size} clips at once"
        self.announce(f"{self.path}: {compilation_line(f'the model for {which}', 'half a minute')}")
        prepared = self._program(("prepare", bodies), functools.partial(self._prepare, bodies))
        clips = jax.ShapeDtypeStruct((size, bodies, *self.description.clip_shape[1:]), np.float32)
        counts = jax.ShapeDtypeStruct((size,), np.int32)
        compiled = jax.jit(self._predictor.logits, compiler_options=gpu_compiler_options())
        return functools.partial(compiled.lower(prepared, clips, counts).compile(), prepared)

    def _fitted(self, bodies: int) -> dict:
        """The variables for clips of `bodies` bodies."""
        variables, trained = self.variables, self.description.bodies
        if bodies != trained:
            logging.warning(
                "%s was trained on clips of at most %s; in clips of %d, further bodies are normalized with the "
                "first one's statistics",
                self.path,
                counted(trained, "body", "bodies"),
                bodies,
            )
            variables = fit_bodies(variables, bodies, trained)
        return variables

    def _prepare(self, bodies: int) -> dict:
        """The variables as the predictor takes them, for clips of `bodies` bodies."""
        options = {**HASTY, **gpu_compiler_options()}
        prepare = jax.jit(self._predictor.prepare, static_argnums=1, compiler_options=options)
        return prepare(self._fitted(bodies), (bodies, *self.description.clip_shape[1:]))

    def _program(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns for `key`, made once; threads that need it at the same time wait for the first."""
        if key not in self._programs:
            with self._lock:
                if key not in self._programs:
                    self._programs[key] = make()
        return self._programs[key]


def load_model(path: str | pathlib.Path) -> TrainedModel:
    """Loads a trained skeleton model; FAM, FRM and the image encoder are not read.

    Args:
      path: the workdir of a run, which may still train; the workdir of an import (`mmcl_jax.torch_weights import`); a
        bundle (`mmcl_jax.export`); "any_camera", the model that comes with the package; or "user/name", a bundle on the
        Hugging Face Hub, if `huggingface_hub` is installed.

    Raises:
      BundleError, CheckpointError, DescriptionError, WorkdirError, RecordsError, ConfigError, LayoutError: the folder
        is none of these, or it is damaged. The message names the file and the remedy.
    """
    folder = bundle.locate(path)
    if bundle.is_bundle(folder):
        description, variables, step = bundle.read_bundle(folder)
        return TrainedModel(description, variables, step=step, path=str(path))
    description = read_description(folder)
    step, variables = checkpoints.restore_skeleton(folder, description.template())
    return TrainedModel(description, jax.tree.map(np.asarray, variables), step=step, path=str(path))


def test_options(description: Description) -> TransformOptions:
    """What happens to a raw clip before a model of this description sees it."""
    options = transform_options(description.config)
    return dataclasses.replace(options, centre=True) if description.centered else options


def test_transform(description: Description, max_frames: Any) -> Transform:
    """The test transform of a model's raw clips, of at most `max_frames` frames (see `transforms.make_transform`)."""
    info = description.info
    options = test_options(description)
    return make_transform(options, info.skeleton_layout, max_frames, train=False, coordinates=info.num_coordinates)


def _batches(numbers: list[int]) -> list[list[int]]:
    if len(numbers) <= _SINGLY:
        return [[number] for number in numbers]
    largest = BATCHES[-1]
    return [numbers[begin : begin + largest] for begin in range(0, len(numbers), largest)]


def _shapes(variables: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(dict(variables))
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}
