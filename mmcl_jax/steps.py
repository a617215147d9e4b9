"""The training step as pure functions of arrays, for any caller with a model and clips: a run, a benchmark, a test.

It needs only jax, flax, optax and numpy; where the clips come from is up to the caller.

    recipe = Recipe(MMCL(backbone), transform, optimizer, LossOptions(contrastive_weight=0, refinement_weight=0))
    mesh = sharding.data_mesh()
    state = sharding.replicate(initial_state(recipe, seed=0, batch=batch), mesh)
    step = compile_step(recipe, seed=0, mesh=mesh)
    state = step(state, sharding.place_batch(batch, mesh))

A batch is a dict of arrays of N raw clips, described in `input_pipeline`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from mmcl_jax.data.transforms import Transform, normalise_images
from mmcl_jax.models import losses
from mmcl_jax.models.mmcl import BACKBONE, MMCL
from mmcl_jax.models.packed import Packing
from mmcl_jax.runtime import sharding
from mmcl_jax.runtime.backend import HASTY

LOSSES = ("loss", "classification", "contrastive", "refinement")
# Clips `[N, M, T, V, C]`, images `[N, H, W, 3]` or their features `[N, D]`, and text `[N, D]`; None: not read.
ModelInputs = tuple[Any, Any | None, Any | None]


class TrainState(struct.PyTreeNode):
    """Everything that changes in training.

    Attributes:
      step: int32, steps done.
      params: of `MMCL`, the backbone's under `BACKBONE`.
      batch_stats: batch-norm statistics, in the same structure.
      opt_state: of the recipe's optimizer.
      totals: float32 sums over the epoch so far of each loss and of the fraction of correct clips, the number of steps
        summed, and int32 `first_bad_step`, the first step of the run whose loss was not finite (-1: none).
      average: moving average of the backbone's `params` and `batch_stats`, which evaluation uses; None: there is none.
      best: float32 `top1` on the validation split and int32 `epoch` of the best epoch so far, -1 before the first
        evaluation; None: the run does not look for it.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    totals: dict[str, jax.Array]
    average: Any = None
    best: dict[str, jax.Array] | None = None


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """The weights of eq. 10 and the form of its contrastive term.

    Attributes:
      contrastive_weight: lambda_1.
      refinement_weight: lambda_2.
      contrastive: 'released' or 'paper', see `losses.contrastive`.
      temperature: tau of eq. 5.
      contrastive_group_size: clips contrasted with each other; None: the whole batch.
      label_smoothing: share of the targets that all classes get in equal parts.
      class_weights: what a clip of each class counts in the classification losses, K numbers; None: all the same.
      mixup: clips are mixed in pairs, with a weight from Beta(mixup, mixup); 0: they are not. Images and text are not
        mixed.
    """

    contrastive_weight: float = 0.1
    refinement_weight: float = 0.2
    contrastive: str = "released"
    temperature: float = 0.4
    contrastive_group_size: int | None = None
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    mixup: float = 0.0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The parts of a training step.

    Attributes:
      model: MMCL around a backbone.
      transform: of raw clips, with augmentation.
      optimizer: turns gradients into updates.
      loss: the weights of its terms.
      text_statistics: mean and deviation `[D]` to standardize text features with; None: they stay as they are.
      image_statistics: mean and deviation of RGB in [0, 1] to normalize uint8 images with; None: no images, or features
        in their place.
      ema_decay: of the moving average of the backbone; 0: there is none.
      finds_best: whether the state keeps the best epoch.
    """

    model: MMCL
    transform: Transform
    optimizer: optax.GradientTransformation
    loss: LossOptions
    text_statistics: tuple[np.ndarray, np.ndarray] | None = None
    image_statistics: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    ema_decay: float = 0.0
    finds_best: bool = False


def empty_totals() -> dict[str, jax.Array]:
    """Totals at the start of an epoch."""
    zeros = {name: jnp.zeros((), jnp.float32) for name in (*LOSSES, "correct", "steps")}
    return {**zeros, "first_bad_step": jnp.full((), -1, jnp.int32)}


def initial_state(recipe: Recipe, seed: int, batch: dict[str, Any]) -> TrainState:
    """A random state for batches like `batch`; only its shapes and types matter (one clip is enough)."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), dict(batch))
    inputs = jax.eval_shape(functools.partial(model_inputs, recipe=recipe), shapes, jax.random.key(0))
    return draw_state(recipe, seed, inputs)


def draw_state(recipe: Recipe, seed: int, inputs: ModelInputs) -> TrainState:
    """`random_state`, compiled: hundreds of small random draws, run once, which are not worth optimizing."""
    return jax.jit(functools.partial(_random_state, recipe, inputs), compiler_options=HASTY)(_key_data(seed))


def _random_state(recipe: Recipe, inputs: ModelInputs, key: jax.Array) -> TrainState:
    """The random state of a key's data, an argument so that runs of all seeds share a compiled program."""
    return _state_of_key(recipe, jax.random.wrap_key_data(key), inputs)


def _key_data(seed: int) -> np.ndarray:
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


def random_state(recipe: Recipe, seed: int, inputs: ModelInputs) -> TrainState:
    """A random state for a model with these `inputs`, of which only shapes and types matter.

    Under `jax.eval_shape` it gives the shapes of any state of the run.
    """
    return _state_of_key(recipe, jax.random.key(seed), inputs)


def _state_of_key(recipe: Recipe, key: jax.Array, inputs: ModelInputs) -> TrainState:
    """`random_state` with the key of its seed."""
    inputs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), inputs)
    variables: Any = recipe.model.init(key, *inputs, train=False)
    params = dict(variables["params"])
    batch_stats = {BACKBONE: {}, **variables.get("batch_stats", {})}  # a backbone may have none
    return start_state(recipe, params, batch_stats)


def start_state(recipe: Recipe, params: Any, batch_stats: Any) -> TrainState:
    """The state before the first step with these variables of `MMCL`."""
    best = {"top1": jnp.full((), -1, jnp.float32), "epoch": jnp.full((), -1, jnp.int32)}
    return TrainState(
        jnp.zeros((), jnp.int32),
        params,
        batch_stats,
        recipe.optimizer.init(params),
        empty_totals(),
        # A copy: a step may not be given the same array twice to overwrite.
        average=jax.tree.map(jnp.copy, _backbone_part(params, batch_stats)) if recipe.ema_decay else None,
        best=best if recipe.finds_best else None,
    )


def _backbone_part(params: Any, batch_stats: Any) -> dict[str, Any]:
    return {"params": params[BACKBONE], "batch_stats": batch_stats[BACKBONE]}


def model_inputs(batch: dict[str, jax.Array], key: jax.Array, *, recipe: Recipe) -> ModelInputs:
    """What the model sees of a batch in training: transformed clips, images (or their features) and text.

    Each clip's own key is derived from its position and `key`.
    """
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(batch["position"])
    clips = jax.vmap(recipe.transform)(batch["skeleton"], batch["frames"], batch["bodies"], keys)
    image = batch.get("image")
    if image is not None and recipe.model.image_encoder is not None:
        assert recipe.image_statistics is not None, "an image encoder in training needs image_statistics"
        image = normalise_images(image, *recipe.image_statistics)
    text = batch.get("text")
    if text is not None and recipe.text_statistics is not None:
        mean, deviation = recipe.text_statistics
        text = (text - mean) / deviation
    return clips, image, text


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    recipe: Recipe,
    key: jax.Array,
    packing: Packing | None = None,
) -> TrainState:
    """One step of SGD on a batch of raw clips.

    Args:
      state: the state before the step.
      batch: see `input_pipeline`.
      recipe: model, transform, optimizer, loss.
      key: the run's augmentation key; each clip's own is derived from its position, dropout's from the step.
      packing: absent bodies, which `recipe.transform` must keep zero, are computed once; the result is the same but for
        rounding. None: all bodies are computed.
    """
    clip_key, dropout_key = jax.random.split(key)
    inputs = model_inputs(batch, clip_key, recipe=recipe)
    labels, share = batch["label"], None
    if recipe.loss.mixup:
        mixup_key = jax.random.fold_in(jax.random.fold_in(dropout_key, state.step), 1)
        share = jax.random.beta(mixup_key, recipe.loss.mixup, recipe.loss.mixup)
        inputs = (mix(inputs[0], share), *inputs[1:])

    def objective(params: Any):
        applied: Any = recipe.model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            *inputs,
            train=True,
            bodies=batch["bodies"],
            packing=packing,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(dropout_key, state.step)},
        )
        outputs, updates = applied
        terms = loss_terms(outputs, labels, recipe.loss, recipe.model.backbone.classification_loss)
        if share is not None:
            others = loss_terms(outputs, _partners(labels), recipe.loss, recipe.model.backbone.classification_loss)
            terms = {name: share * term + (1 - share) * others[name] for name, term in terms.items()}
        return terms["loss"], (terms, outputs["logits"], {**state.batch_stats, **updates.get("batch_stats", {})})

    gradients, (terms, logits, batch_stats) = jax.grad(objective, has_aux=True)(state.params)
    updates, opt_state = recipe.optimizer.update(gradients, state.opt_state, state.params)
    params = jax.tree.map(lambda p, u: p + u, state.params, updates)
    correct = (logits.argmax(axis=-1) == labels).mean()
    return state.replace(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        totals=_add_totals(state.totals, {**terms, "correct": correct}, state.step),
        average=_moved(state.average, _backbone_part(params, batch_stats), state.step, recipe.ema_decay),
    )


def _moved(average: Any, new: Any, step: jax.Array, decay: float) -> Any:
    """The moving average after step `step`, counted from 0: it follows the first steps faster. None stays None."""
    if average is None:
        return None
    kept = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, b: (kept * a + (1 - kept) * b).astype(a.dtype), average, new)


def mix(clips: jax.Array, share: jax.Array) -> jax.Array:
    """mixup (Zhang et al., ICLR 2018): `share` of each clip `[N, ...]` and the rest of the clip before it."""
    return share * clips + (1 - share) * _partners(clips)


def _partners(values: jax.Array) -> jax.Array:
    return jnp.roll(values, 1, axis=0)  # batches are in random order


def loss_terms(
    outputs: dict[str, Any], labels: jax.Array, options: LossOptions, classification_loss: Callable[..., jax.Array]
) -> dict[str, jax.Array]:
    """The terms of eq. 10 and their weighted sum `loss`, from the outputs of `MMCL`; absent modules count zero.

    Args:
      outputs: of `MMCL`.
      labels: int `[N]`.
      options: the weights.
      classification_loss: the backbone's, a function of logits, auxiliary outputs and labels; see `mmcl_jax.models`.
    """
    asked: dict[str, Any] = {"smoothing": options.label_smoothing} if options.label_smoothing else {}
    if options.class_weights is not None:
        asked["weights"] = jnp.asarray(options.class_weights, jnp.float32)[labels]
    terms = {
        "classification": classification_loss(outputs["logits"], outputs["aux"], labels, **asked),
        "contrastive": jnp.zeros(()),
        "refinement": jnp.zeros(()),
    }
    if "image_features" in outputs:
        terms["contrastive"] = losses.contrastive(
            outputs["skeleton_features"],
            outputs["image_features"],
            temperature=options.temperature,
            variant=options.contrastive,
            group_size=options.contrastive_group_size,
        )
    if "refined_logits" in outputs:
        terms["refinement"] = losses.cross_entropy(outputs["refined_logits"], labels, **asked)
    weighted = options.contrastive_weight * terms["contrastive"] + options.refinement_weight * terms["refinement"]
    return {**terms, "loss": terms["classification"] + weighted}


def _add_totals(totals: dict[str, jax.Array], values: dict[str, jax.Array], step: jax.Array) -> dict[str, jax.Array]:
    added = {name: totals[name] + values[name] for name in (*LOSSES, "correct")}
    bad_now = ~jnp.isfinite(values["loss"]) & (totals["first_bad_step"] < 0)
    first_bad = jnp.where(bad_now, step, totals["first_bad_step"])
    return {**added, "steps": totals["steps"] + 1, "first_bad_step": first_bad}


def train_steps(
    state: TrainState,
    batches: dict[str, jax.Array],
    clips: dict[str, jax.Array] | None = None,
    *,
    steps: int,
    recipe: Recipe,
    key: jax.Array,
    packing: Packing | None = None,
) -> TrainState:
    """`steps` steps in one program, which does not return to the host between them.

    The result equals that of single steps except for rounding, as XLA fuses a loop's body differently: two steps move
    the parameters to within 1e-4 of where single ones do, relative to the distance moved (tested; 5e-6 is usual).

    Args:
      state: the state before the steps.
      batches: a batch; with several `steps`, one for each, stacked: `[steps, N, ...]`. See `draw`.
      clips: a resident dataset, if the batches are drawn from one.
      steps: how many.
      recipe, key, packing: as in `train_step`.
    """

    def step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, None]:
        return train_step(state, draw(batch, clips), recipe=recipe, key=key, packing=packing), None

    return step(state, batches)[0] if steps == 1 else jax.lax.scan(step, state, batches, length=steps)[0]


def draw(batch: dict[str, jax.Array], clips: dict[str, jax.Array] | None) -> dict[str, jax.Array]:
    """The batch itself, or the resident clips that it names by `row` int32 `[N]`, with its `position` uint32 `[N]`."""
    if clips is None:
        return batch
    drawn = {name: values.at[batch["row"]].get(mode="promise_in_bounds") for name, values in clips.items()}
    return {**drawn, "position": batch["position"]}


@dataclasses.dataclass(frozen=True)
class Step:
    """A program of one or several steps, called as (state, batches), or (state, batches, clips) of resident clips.

    Attributes:
      program: the jitted function of `key` and these arguments.
      key: data of the run's augmentation key. It is an argument so that runs of all seeds share a compiled program.
    """

    program: Any
    key: np.ndarray

    def __call__(self, *arguments: Any) -> TrainState:
        return self.program(self.key, *arguments)

    def compile(self, *arguments: Any) -> Callable[..., TrainState]:
        """The program compiled for arguments like these."""
        return functools.partial(self.program.lower(self.key, *arguments).compile(), self.key)


def compile_step(
    recipe: Recipe,
    seed: int,
    mesh: jax.sharding.Mesh,
    *,
    steps: int = 1,
    resident: bool = False,
    capacity: int | None = None,
) -> Step:
    """The jitted function (state, batches) -> state after `steps` steps; if clips are `resident`, (..., clips).

    Batches are divided over the mesh; the state, which is donated, and resident clips are whole on every device. With a
    `capacity`, that many bodies of each group of clips are computed, and absent ones only once (see `models.packed`).
    """
    everywhere = sharding.replicated(mesh)
    batches = sharding.over_clips(mesh, stacked=steps > 1)
    packing = None if capacity is None else Packing(capacity, mesh)
    program = jax.jit(
        functools.partial(_train_steps, steps=steps, recipe=recipe, packing=packing),
        in_shardings=(everywhere, everywhere, batches, *[everywhere] * resident),
        out_shardings=everywhere,
        donate_argnums=1,
    )
    return Step(program, np.asarray(jax.random.key_data(jax.random.fold_in(jax.random.key(seed), 1))))


def _train_steps(key: jax.Array, state: TrainState, *batches: Any, **options: Any) -> TrainState:
    """`train_steps` with the data of its key as an argument."""
    return train_steps(state, *batches, key=jax.random.wrap_key_data(key), **options)
