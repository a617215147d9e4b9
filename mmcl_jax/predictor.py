"""Classifies clips with a trained skeleton model, fast; used by evaluation and, through `make_predictor`, by others.

Three things make it faster than running the model, and none changes the logits by more than rounding:

* batch norms are folded into the products before them (`mmcl_jax.models.folded`);
* bodies are independent until the features are pooled, so they are computed a few at a time, which keeps them in the
  processor's cache;
* an absent body has the same features in every clip (`Predictor.skips_absent`), so they are computed once for a set of
  variables, and a clip of one person costs half.

How many bodies are present is known only at run time, so that no mixture of clips compiles a new program.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.data.transforms import absent_stays_zero
from mmcl_jax.models import BACKBONES, count_classes, folded
from mmcl_jax.models.layers import pool
from mmcl_jax.runtime.backend import HASTY, gpu_compiler_options
from mmcl_jax.runtime.errors import ConfigError, MMCLError

if TYPE_CHECKING:
    from mmcl_jax.config import AnyConfig, Config
    from mmcl_jax.data.layouts import Layout

# Bodies computed at once on a CPU, where more do not fit the cache; on an accelerator, one of so many parts of them.
_BODIES_AT_ONCE = 2
_ACCELERATOR_CHUNKS = 8
# Up to this many bodies in all, the program has a branch for each pair of bodies instead of a loop.
_FEW_BODIES = 2 * _BODIES_AT_ONCE


class PredictionError(MMCLError, ValueError):
    """Variables, clips or numbers of bodies that do not fit the model. The message says what would."""


@dataclasses.dataclass(frozen=True)
class Predictor:
    """The pure functions of prediction: `prepare` once for a set of variables, then `logits`. Both can be jitted.

    Attributes:
      backbone: a module that keeps the contract in `mmcl_jax.models`, as it is trained.
      skips_absent: whether absent bodies are left out. This is right if they are zero in every frame of the clips that
        reach `logits`. With `absent_body='copy'` they are not: the second body is a copy that has its own statistics.
      dtype: type of the features, None: that of the clips. Logits are float32 or wider.
    """

    backbone: Any
    skips_absent: bool
    dtype: Any = None

    def prepare(self, variables: Mapping, clip_shape: tuple[int, int, int, int]) -> dict:
        """Turns variables into what `logits` needs of them.

        Args:
          variables: `params` and `batch_stats` of the backbone.
          clip_shape: `[M, T, V, C]` of the clips that will be classified.

        Returns:
          `variables`, those of the backbone's twin, and `absent`, the pooled features of each absent body, `[M, C']`.
          For a backbone without a twin: only `variables`, unchanged.
        """
        if not self._by_bodies:
            return {"variables": variables}
        twin_variables = folded.fold(self.backbone, variables)
        if self.dtype is not None:
            params = {
                name: jax.tree.map(lambda leaf: leaf.astype(self.dtype), part) if name.startswith("blocks_") else part
                for name, part in twin_variables["params"].items()
            }
            twin_variables = {**twin_variables, "params": params}
        bodies = clip_shape[0]
        if not self.skips_absent:
            return {"variables": twin_variables, "absent": jnp.zeros((bodies, self.backbone.feature_width))}
        dtype = jax.tree.leaves(variables)[0].dtype
        embedded = self._embed(twin_variables, jnp.zeros((1, *clip_shape), dtype))
        return {"variables": twin_variables, "absent": self._pooled(twin_variables, embedded)}

    def logits(self, prepared: Mapping, clips: jax.Array, bodies: jax.Array) -> jax.Array:
        """Transformed clips `[N, M, T, V, C]`, how many of their bodies are present, int `[N]` -> logits `[N, K]`."""
        if not self._by_bodies:
            return self.backbone.apply(prepared["variables"], clips, train=False)[0]
        variables, absent = prepared["variables"], prepared["absent"]
        count, most = clips.shape[:2]
        present = jnp.arange(most) < bodies[:, None]
        if self.skips_absent:
            clips = jnp.where(present[:, :, None, None, None], clips, 0)  # absent bodies may hold anything
        else:
            present = jnp.ones_like(present)
        present = present.reshape(-1)
        embedded = self._embed(variables, clips)
        order = jnp.argsort(~present, stable=True)
        features = jnp.tile(absent, (count, 1))
        compute = functools.partial(self._replace, variables, embedded, order)
        if count * most <= _FEW_BODIES:
            features = _replace_few(compute, features, present.sum())
        else:
            features = _replace_many(compute, features, present.sum())
        features = features.reshape(count, most, 1, 1, -1)
        logits, _ = self._twin.apply(variables, features, False, method="head")
        return logits

    def all_logits(self, prepared: Mapping, clips: jax.Array) -> jax.Array:
        """As `logits`, but every body is computed, absent ones too: N may be a symbolic dimension of `jax.export`."""
        module = self._twin if self._by_bodies else self.backbone
        return module.apply(prepared["variables"], clips, train=False)[0]

    @property
    def _by_bodies(self) -> bool:
        return folded.has_twin(self.backbone)

    @property
    def _twin(self) -> Any:
        return folded.twin_of(self.backbone)

    def _embed(self, variables: Mapping, clips: jax.Array) -> jax.Array:
        """Clips `[N, M, T, V, C]` -> bodies `[N * M, C, T, V]`."""
        embedded = self._twin.apply(variables, clips, False, method="embed")
        embedded = embedded.astype(self.dtype or embedded.dtype)
        return jnp.moveaxis(embedded, 0, 2).reshape(-1, embedded.shape[0], *embedded.shape[3:])

    def _pooled(self, variables: Mapping, bodies: jax.Array) -> jax.Array:
        """Bodies `[B, C, T, V]` -> the mean of their features over frames and joints, `[B, C']`."""
        features = self._twin.apply(variables, bodies.swapaxes(0, 1)[:, :, None], False, method="trunk")
        return pool(features)

    def _replace(
        self,
        variables: Mapping,
        embedded: jax.Array,
        order: jax.Array,
        features: jax.Array,
        begin: jax.Array | int,
        size: int,
    ) -> jax.Array:
        """Computes the features of the bodies `order[begin : begin + size]` and puts them into `features` `[B, C']`."""
        rows = jax.lax.dynamic_slice_in_dim(order, begin, size)
        return features.at[rows].set(self._pooled(variables, embedded[rows]).astype(features.dtype))


def _replace_few(compute: Callable[..., jax.Array], features: jax.Array, count: jax.Array) -> jax.Array:
    """Computes the first `count` bodies in pairs, and the last one by itself if `count` is odd: never one too many."""
    for begin in range(0, len(features) - 1, _BODIES_AT_ONCE):
        pair = functools.partial(compute, begin=begin, size=_BODIES_AT_ONCE)
        features = jax.lax.cond(count >= begin + _BODIES_AT_ONCE, pair, _unchanged, features)
    single = functools.partial(compute, begin=count - 1, size=1)
    return jax.lax.cond(count % _BODIES_AT_ONCE == 1, single, _unchanged, features)


def _unchanged(features: jax.Array) -> jax.Array:
    return features


def _replace_many(compute: Callable[..., jax.Array], features: jax.Array, count: jax.Array) -> jax.Array:
    """Computes the first `count` bodies; the last turn may include absent ones, whose features come out the same."""
    size = _BODIES_AT_ONCE if jax.default_backend() == "cpu" else -(-len(features) // _ACCELERATOR_CHUNKS)
    trips = (count + size - 1) // size
    return jax.lax.fori_loop(0, trips, lambda trip, features: compute(features, trip * size, size), features)


def predictor_of(backbone: Any, config: "Config") -> Predictor:
    """Returns the predictor of a run's skeleton model; it skips absent bodies if the run's transform keeps them 0."""
    return Predictor(backbone, absent_stays_zero(config.data.absent_body, config.data.sampling))


def make_predictor(
    variables: Mapping, config: "AnyConfig", *, layout: "Layout", coordinates: int = 3
) -> Callable[..., jax.Array]:
    """Returns a function that classifies clips with a trained skeleton model; it needs no records.

    Args:
      variables: `params` and `batch_stats` of the backbone, as `checkpoints.restore_skeleton` returns them.
      config: the run's configuration; its parts `model` and `data` are used.
      layout: that of the skeletons, one of `mmcl_jax.data.layouts.LAYOUTS`.
      coordinates: how many of a joint's channels are its position (the others are a confidence).

    Returns:
      predict(clips, bodies=None): clips `[N, M, T, V, C]`, as the run's transform returns them, and how many of their
      bodies are present, int `[N]` (None: all) -> logits `[N, K]`. It compiles once for each shape of the clips; with
      `absent_body='zeros'`, absent bodies cost nothing. Raises: PredictionError if the clips do not fit the model,
      or for more bodies than they hold.

    Raises:
      ConfigError: the backbone is unknown.
      PredictionError: the variables are of another backbone.
    """
    from mmcl_jax.config import Config  # needs ml_collections, which a benchmark of the functions above may lack

    config = Config.of(config)
    if config.model.backbone not in BACKBONES:
        raise ConfigError(f"model.backbone {config.model.backbone!r} is not one of {', '.join(BACKBONES)}")
    if "params" not in variables or not {"decoder", "fc"} & set(variables["params"]):
        raise PredictionError(
            f"variables {', '.join(variables)}: not those of a skeleton model; expected params with a classifier, and "
            "batch_stats, as checkpoints.restore_skeleton returns them"
        )
    backbone = BACKBONES[config.model.backbone](count_classes(variables["params"]), layout, coordinates, config.model)
    predictor = predictor_of(backbone, config)
    options = gpu_compiler_options()
    logits = jax.jit(predictor.logits, compiler_options=options)
    prepare_jitted = jax.jit(predictor.prepare, static_argnums=1, compiler_options={**HASTY, **options})

    @functools.lru_cache
    def prepare(clip_shape: tuple[int, int, int, int]) -> dict:
        _check_fit(backbone, variables, clip_shape)
        return prepare_jitted(variables, clip_shape)

    def predict(clips: jax.Array | np.ndarray, bodies: jax.Array | np.ndarray | None = None) -> jax.Array:
        if clips.ndim != 5 or 0 in clips.shape or clips.shape[3] != layout.num_joints:
            raise PredictionError(
                f"clips {clips.shape}, expected [N, M, T, V, C] with N > 0, M > 0, T > 0 and V = {layout.num_joints}"
            )
        bodies = np.full(len(clips), clips.shape[1]) if bodies is None else np.asarray(bodies)
        whole = bodies.dtype.kind in "iu" and bodies.shape == clips.shape[:1]
        if not whole or bodies.min() < 0 or bodies.max() > clips.shape[1]:
            most = clips.shape[1]
            raise PredictionError(
                f"bodies {bodies.tolist()}, expected a whole number for each of {len(clips)} clips, 0 to {most}"
            )
        return logits(prepare(clips.shape[1:]), clips, bodies.astype(np.int32))

    return predict


def _check_fit(backbone: Any, variables: Mapping, clip_shape: tuple[int, int, int, int]) -> None:
    """Raises PredictionError if `backbone` has other variables for clips `[M, T, V, C]`, and names the first."""
    clip = jax.ShapeDtypeStruct((1, *clip_shape), np.float32)
    expected = jax.eval_shape(functools.partial(backbone.init, train=False), jax.random.key(0), clip)
    (wanted, given) = (
        {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(dict(tree))}
        for tree in (expected, variables)
    )
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            raise PredictionError(
                f"variables{name} {given.get(name, 'missing')}, expected {wanted.get(name, 'none')} for clips "
                f"[M, T, V, C] {list(clip_shape)}: the weights are of another model, or the clips are not its clips"
            )
