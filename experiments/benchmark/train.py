"""Training steps at NTU RGB+D 120's shapes: this library against PyTorch, eager and compiled; CTR-GCN, and MMCL.

MMCL trains Inception-v3 beside CTR-GCN. Random arrays stand in for the data: of clips that live on the device this
library draws and augments a batch in each step, several steps a dispatch; PyTorch, whose users augment in the feeder's
workers, is given one batch that is augmented already. Weights are the same, and the losses of the first step, of the
same batch and without dropout, are compared before anything is timed.

'As released' is the order in which the published CTR-GCN computes, 'mean first' the same function in the order that is
faster, which this library has too. bfloat16 is PyTorch's autocast. On a GPU float32 is TF32 for all (operands of
products rounded to 10 bits), PyTorch's optimiser is fused and its CNN has channels last. All contenders share the
device's memory: where it does not suffice, leave some out, or take a smaller batch (MMCL's 200 clips take more than
half of 80 GB).
"""

import argparse
import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import machine
from experiments.benchmark.harness import Contender, Program, UnavailableError, alternate
from experiments.benchmark.report import Report
from experiments.multiply_adds import multiply_adds
from mmcl_jax import optim, steps
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.data.transforms import TransformOptions, make_transform
from mmcl_jax.models.ctrgcn import CTRGCN
from mmcl_jax.models.graphs import spatial_adjacency
from mmcl_jax.models.image_encoders import IMAGENET
from mmcl_jax.models.inception import InceptionV3
from mmcl_jax.models.mmcl import BACKBONE, MMCL, FeatureAlignment, FeatureRefinement
from mmcl_jax.pytorch.names import ctrgcn_entries, inception_entries, mmcl_entries
from mmcl_jax.pytorch.state_dicts import to_flax
from mmcl_jax.runtime import sharding
from mmcl_jax.runtime.backend import keep_memory, tune_training_compiler
from mmcl_jax.runtime.options import model_width, positive

CASES = {"ctrgcn": "CTR-GCN", "mmcl": "MMCL with Inception-v3"}
CLASSES, BODIES, FRAMES, WINDOW, CHANNELS, TEXT_WIDTH = 120, 2, 300, 64, 3, 3
# Table 3's recipe: 110 epochs of NTU 120 X-Sub's training clips.
EPOCHS, TRAINING_CLIPS = 110, 63_026
_LAYOUT = LAYOUTS["ntu"]
_LEARNING_RATE = 1e-3  # of random clips at random weights, finite for as many steps as are timed
_DTYPES = ("float32", "bfloat16")
_TOLERANCE = {"float32": 1e-3, "TF32": 1e-2, "bfloat16": 3e-2}  # of the first losses
_SHARE = 0.1  # of a GPU's memory, for the clips; contenders need the rest


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained: one of CASES, in batches of so many clips."""

    name: str
    batch: int
    base_channels: int
    image_size: int
    dtype: str
    one_person: float = 0.0  # share of the clips with one body

    @property
    def with_images(self) -> bool:
        return self.name == "mmcl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", nargs="+", choices=CASES, help="default: ctrgcn; on a GPU both")
    parser.add_argument("--dtype", choices=_DTYPES, help="of features; default float32, on a GPU bfloat16")
    parser.add_argument("--batch", type=positive, help="clips a step; default 16, on a GPU 200")
    parser.add_argument("--steps", type=positive, help="steps a run, of ours in one dispatch; default 1, on a GPU 10")
    parser.add_argument(
        "--clips", type=positive, help="on the device; default four batches, on a GPU as many as a tenth holds"
    )
    parser.add_argument("--one-person", type=float, default=0.0, help="share of clips with one person (default 0)")
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each contender (default %(default)s)")
    parser.add_argument("--turn-seconds", type=float, default=2.0, help="length of a turn (default %(default)s)")
    parser.add_argument(
        "--base-channels", type=model_width, default=64, help="width of the first blocks (default %(default)s)"
    )
    parser.add_argument("--image-size", type=positive, default=299, help="side of MMCL's images (default %(default)s)")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    parser.add_argument("--no-eager", action="store_true", help="leave out PyTorch eager, mean first")
    parser.add_argument("--no-released", action="store_true", help="leave out PyTorch eager, as released")


def run(options: argparse.Namespace, report: Report) -> None:
    on_cpu, ceilings = report.machine.backend == "cpu", report.machine.ceilings
    dtype = options.dtype or ("float32" if on_cpu else "bfloat16")
    batch = options.batch or (16 if on_cpu else 200)
    repeats = options.steps or (1 if on_cpu else 10)
    precision = "TF32" if dtype == "float32" and not on_cpu else dtype
    for name in options.cases or (["ctrgcn"] if on_cpu else list(CASES)):
        case = Case(name, batch, options.base_channels, options.image_size, dtype, options.one_person)
        with tempfile.TemporaryDirectory() as folder:
            inputs = pathlib.Path(folder) / "inputs.npz"
            machine.measured(functools.partial(write_inputs, case, inputs))
            timings = alternate(
                _contenders(case, repeats, inputs, options),
                rounds=options.rounds,
                turn_seconds=options.turn_seconds,
                tolerance=_TOLERANCE[precision],
                ready_within=options.ready_within,
            )
        people = f", {100 * options.one_person:g} % of one person" if options.one_person else ""
        title = f"{CASES[name]}, a training step of {batch} clips{people}, {precision}"
        ceiling = ceilings.products.get(precision)  # on CPUs only float32's is measured
        report.timings(title, timings, units=batch, unit="clip", ceiling=ceiling, copy_ceiling=ceilings.copy)
        hours = [
            (timing.name, f"{EPOCHS * TRAINING_CLIPS * timing.median / batch / 3600:.2f}")
            for timing in timings
            if not timing.unavailable
        ]
        title = f"{CASES[name]}: hours that {EPOCHS} epochs of {TRAINING_CLIPS:,} clips take at these rates"
        report.table(title, ("contender", "hours"), hours)


def _contenders(case: Case, repeats: int, inputs: pathlib.Path, options: argparse.Namespace) -> list[Contender]:
    ours = {"case": case, "repeats": repeats, "clips": options.clips}
    contenders = [Contender("this library", jax_program, ours)]
    if case.one_person:
        contenders.append(Contender("this library, all bodies", jax_program, {**ours, "packs": False}))
    shared = {"case": case, "repeats": repeats, "inputs": inputs}
    for name, wanted, kind in (
        ("PyTorch eager, mean first", not options.no_eager, {"released": False, "compiled": False}),
        ("PyTorch eager, as released", not options.no_released, {"released": True, "compiled": False}),
        ("torch.compile, mean first", not options.no_compile, {"released": False, "compiled": True}),
    ):
        if wanted:
            contenders.append(Contender(name, torch_program, {**shared, **kind}))
    return contenders


def make_recipe(case: Case) -> steps.Recipe:
    """What this library trains. Without dropout, group sizes and warm-up: PyTorch does the same then."""
    dtype = None if case.dtype == "float32" else jnp.dtype(case.dtype)
    backbone = CTRGCN(CLASSES, spatial_adjacency(_LAYOUT), case.base_channels, dtype=dtype)
    model, loss = MMCL(backbone), steps.LossOptions(contrastive_weight=0.0, refinement_weight=0.0)
    if case.with_images:
        encoder = InceptionV3(dtype=dtype or jnp.float32)
        model = MMCL(backbone, encoder, FeatureAlignment(backbone.feature_width), FeatureRefinement())
        loss = steps.LossOptions()
    crop = TransformOptions("crop_resize", WINDOW, (0.5, 1.0), 0.95, 0.3, False, "zeros", "joint")
    return steps.Recipe(
        model=model,
        transform=make_transform(crop, _LAYOUT, FRAMES, True, coordinates=CHANNELS),
        optimizer=optim.sgd(lambda step: _LEARNING_RATE, momentum=0.9, weight_decay=4e-4),
        loss=loss,
        image_statistics=IMAGENET if case.with_images else None,
    )


def random_clips(case: Case, batches: int) -> dict[str, jax.Array]:
    """As many batches of raw clips, drawn on the device; the first is the same however many there are."""

    def draw(number: jax.Array) -> dict[str, jax.Array]:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), number), 5)
        single = jax.random.uniform(jax.random.fold_in(keys[0], 0), (case.batch,)) < case.one_person
        bodies = jnp.where(single, 1, BODIES)
        present = jnp.arange(BODIES) < bodies[:, None]
        skeleton = jax.random.normal(keys[0], (case.batch, BODIES, FRAMES, _LAYOUT.num_joints, CHANNELS))
        clips = {
            "skeleton": jnp.where(present[..., None, None, None], skeleton, 0),
            "frames": jax.random.randint(keys[1], (case.batch,), 50, 150),
            "bodies": bodies,
            "label": jax.random.randint(keys[2], (case.batch,), 0, CLASSES),
        }
        if case.with_images:
            size = (case.batch, case.image_size, case.image_size, 3)
            clips["image"] = jax.random.bits(keys[3], size, jnp.uint8)
            clips["text"] = jax.random.randint(keys[4], (case.batch, TEXT_WIDTH), 0, 30_522).astype(jnp.float32)
        return clips

    drawn = jax.jit(lambda: jax.lax.map(draw, jnp.arange(batches)))()
    return {name: array.reshape(-1, *array.shape[2:]) for name, array in drawn.items()}


def write_inputs(case: Case, path: pathlib.Path) -> None:
    """Writes what the model sees of the first batch, augmented, for PyTorch."""
    clips = random_clips(case, 1)
    recipe = make_recipe(case)
    skeleton, image, text = jax.jit(functools.partial(_first_inputs, recipe=recipe))(clips)
    arrays = {"skeleton": skeleton, "label": clips["label"]}
    if case.with_images:
        arrays |= {"image": image, "text": text}
    np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})


def _first_inputs(clips: dict[str, jax.Array], *, recipe: steps.Recipe):
    batch = {**clips, "position": jnp.arange(len(clips["label"]), dtype=jnp.uint32)}
    return steps.model_inputs(batch, jax.random.key(1), recipe=recipe)


def _initial_state(case: Case, recipe: steps.Recipe, clips: dict[str, jax.Array]) -> steps.TrainState:
    """A state for batches like `clips`, with the weights of PyTorch's models."""
    model, encoder = torch_models(case, released=False)
    inputs = jax.eval_shape(functools.partial(_first_inputs, recipe=recipe), clips)
    template = jax.eval_shape(functools.partial(steps.random_state, recipe, 0, inputs))
    shapes = {"params": template.params, "batch_stats": template.batch_stats}
    skeleton = {name: {k: v for k, v in tree.items() if k != "image_encoder"} for name, tree in shapes.items()}
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    if case.with_images:
        variables = to_flax(weights, mmcl_entries(case.base_channels), skeleton)
        images = {name: tree["image_encoder"] for name, tree in shapes.items()}
        encoded = {name: value.numpy() for name, value in encoder.state_dict().items()}
        for name, tree in to_flax(encoded, inception_entries(), images).items():
            variables[name]["image_encoder"] = tree
    else:
        skeleton = {name: tree[BACKBONE] for name, tree in shapes.items()}
        found = to_flax(weights, ctrgcn_entries(case.base_channels), skeleton)
        variables = {name: {BACKBONE: tree} for name, tree in found.items()}
    params = jax.device_put(variables["params"])
    return steps.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=jax.device_put(variables["batch_stats"]),
        opt_state=recipe.optimizer.init(params),
        totals=steps.empty_totals(),
    )


def jax_program(case: Case, repeats: int, clips: int | None, packs: bool = True) -> Program:
    """This library: clips on the device, `repeats` steps a dispatch. It `packs` bodies if clips of one person occur."""
    keep_memory()
    tune_training_compiler()
    recipe, mesh = make_recipe(case), sharding.data_mesh(jax.devices()[:1])
    resident = random_clips(case, max(1, (clips or _fitting(case)) // case.batch))
    count = len(resident["label"])
    first = {name: array[: case.batch] for name, array in resident.items()}
    state = _initial_state(case, recipe, first)

    def first_loss(params, batch_stats, clips) -> jax.Array:
        variables, inputs = {"params": params, "batch_stats": batch_stats}, _first_inputs(clips, recipe=recipe)
        outputs, _ = recipe.model.apply(variables, *inputs, train=True, mutable=["batch_stats"])
        loss = recipe.model.backbone.classification_loss
        return steps.loss_terms(outputs, clips["label"], recipe.loss, loss)["loss"]

    loss = float(jax.jit(first_loss)(state.params, state.batch_stats, first))
    rng, done = np.random.default_rng(0), 0
    order, capacities = _epochs(case, np.asarray(resident["bodies"])) if case.one_person else (None, None)
    capacities = capacities if packs else None

    def draw() -> tuple[dict[str, jax.Array], int | None]:
        """The next batches, and the number of bodies of the program for them."""
        nonlocal done
        shape = (repeats, case.batch) if repeats > 1 else (case.batch,)
        position = (done * case.batch + np.arange(repeats * case.batch)).astype(np.uint32).reshape(shape)
        if order is None:
            rows = rng.integers(0, count, shape)
        else:
            rows = np.stack([order(step)[0] for step in range(done, done + repeats)]).reshape(shape) % count
        batches = {"row": rows.astype(np.int32), "position": position}
        capacity = None if capacities is None else capacities.at(done, repeats)
        done += repeats
        return sharding.place_batch(batches, mesh, stacked=repeats > 1), capacity

    state, resident = sharding.replicate(state, mesh), sharding.replicate(resident, mesh)
    batches, first_capacity = draw()
    programs = {}
    for capacity in dict.fromkeys([first_capacity, *((*capacities.sizes, None) if capacities else ())]):
        step = steps.compile_step(recipe, 0, mesh, steps=repeats, resident=True, capacity=capacity)
        programs[capacity] = step, step.program.lower(step.key, state, batches, resident).compile()
    traced = jax.make_jaxpr(jax.grad(first_loss))(state.params, state.batch_stats, first)

    def work() -> None:
        nonlocal state
        batches, capacity = draw()
        step, compiled = programs[capacity]
        state = jax.block_until_ready(compiled(step.key, state, batches, resident))

    details = {
        "flops": 2 * multiply_adds(traced.jaxpr) if capacities is None else None,
        # Of one step: what XLA counts of a loop is one pass of it.
        "bytes": float(programs[first_capacity][1].cost_analysis()["bytes accessed"]),
        "clips": count,
        "steps_per_dispatch": repeats,
    }
    return Program(work, np.array([loss]), details, repeats)


def _epochs(case: Case, bodies: np.ndarray):
    """The order of the clips in the epochs of a run of TRAINING_CLIPS clips, and the numbers of bodies of its programs.

    Clip i of the run is clip i modulo R of those on the device, whose `bodies` are `[R]`: fewer clips would make a run
    so short that it compiled fewer programs.
    """
    from mmcl_jax.data.capacities import BodyCounts, Capacities
    from mmcl_jax.data.input_pipeline import train_order

    counts = BodyCounts(np.resize(bodies, TRAINING_CLIPS), BODIES, seed=0, batch_size=case.batch, repeats=1, groups=1)
    return train_order(TRAINING_CLIPS, seed=0, batch_size=case.batch, repeats=1), Capacities(counts)


def _fitting(case: Case) -> int:
    """Clips to keep on the device: four batches, on a GPU of NTU 120's as many as a share of its memory holds."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return (32 if case.one_person else 4) * case.batch
    a_clip = 4 * BODIES * FRAMES * _LAYOUT.num_joints * CHANNELS + 3 * case.image_size**2 * case.with_images
    return min(TRAINING_CLIPS, int(_SHARE * device.memory_stats()["bytes_limit"]) // a_clip)


def torch_models(case: Case, released: bool):
    """PyTorch's skeleton model, and its CNN or None; the same random weights in every process and order."""
    import torch

    from experiments.pytorch_baselines import gcn, inception, mmcl

    torch.manual_seed(0)
    graph, width = torch.tensor(spatial_adjacency(_LAYOUT)), {"base_channels": case.base_channels}
    kinds = (mmcl.MMCL, mmcl.ReleasedMMCL) if case.with_images else (gcn.CTRGCN, gcn.ReleasedCTRGCN)
    model = kinds[released](CLASSES, graph, **width)
    encoder = inception.InceptionV3() if case.with_images else None
    with torch.no_grad():  # away from the start, where graph convolutions hardly count
        for name, parameter in model.named_parameters():
            if name.endswith(("alpha", "gcn1.bn.weight")):
                parameter.fill_(0.5)
    return model, encoder


def torch_program(case: Case, repeats: int, inputs: pathlib.Path, released: bool, compiled: bool) -> Program:
    """PyTorch, on the GPU where there is one."""
    import torch
    import torch.nn.functional as F
    from torch.utils.flop_counter import FlopCounterMode

    from experiments.pytorch_baselines import mmcl

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if compiled and device == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        raise UnavailableError("torch.compile needs a C++ compiler on a CPU; install g++")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    model, encoder = torch_models(case, released)
    with np.load(inputs, allow_pickle=False) as stored:
        arrays = {name: torch.from_numpy(stored[name]).to(device) for name in stored.files}
    clips, labels = arrays["skeleton"].permute(0, 4, 2, 3, 1).contiguous(), arrays["label"].long()
    parameters = list(model.parameters())
    model.to(device)
    if case.with_images:
        encoder.to(device, memory_format=torch.channels_last)
        images = arrays["image"].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        text, parameters = arrays["text"], [*parameters, *encoder.parameters()]

    def compute_loss() -> torch.Tensor:
        if encoder is None:
            return F.cross_entropy(model(clips), labels)
        return mmcl.mmcl_loss(model(clips, encoder(images), text), labels)

    loss = torch.compile(compute_loss) if compiled else compute_loss
    optimizer = mmcl.make_optimizer(parameters, _LEARNING_RATE, fused=device == "cuda")

    def autocast_loss() -> torch.Tensor:
        with torch.autocast(device, getattr(torch, case.dtype), enabled=case.dtype != "float32"):
            return loss()

    def work() -> torch.Tensor:
        for _ in range(repeats):
            value = mmcl.training_step(optimizer, autocast_loss)
        if device == "cuda":
            torch.cuda.synchronize()
        return value

    if encoder is not None:
        encoder.kept.fill_(1.0)
    counter = contextlib.nullcontext() if compiled else FlopCounterMode(display=False)
    try:
        with counter:
            first = float(mmcl.training_step(optimizer, autocast_loss))
        if encoder is not None:
            encoder.kept.fill_(0.5)
        work()
    except torch.OutOfMemoryError as error:
        raise UnavailableError("no memory beside the others; leave some out (--no-compile, --no-eager, ...)") from error
    details = {"threads": torch.get_num_threads(), "flops": None if compiled else counter.get_total_flops()}
    return Program(work, np.array([first]), details, repeats)
