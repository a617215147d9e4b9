"""Prediction at NTU RGB+D 120's shapes: the predictor against PyTorch and ONNX Runtime.

--backbone names the model; CTR-GCN is the default. All contenders have the same random weights, and their logits are
compared before anything is timed. 'As released' is the order in which the published code computes; 'mean first' the
same function in the order that is faster, which this library has too; only CTR-GCN has two orders. PyTorch and its
exports always compute both bodies; the predictor and our own export (`mmcl_jax.export --format=onnx`) only those that
are present (absent_body='zeros').
On a GPU there are three precisions: 'float32', whose products are exact to float32's 23 bits in every contender,
'TF32', whose operands are rounded to 10 bits (JAX's default), and 'bfloat16', PyTorch's autocast.
The last column is the fraction of the machine's rate of a large matrix product, by the multiply-adds of each program's
own products and convolutions. ONNX Runtime needs `pip install '.[onnx]'`; it is left out without.
"""

import argparse
import functools
import importlib
import io
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark import machine
from experiments.benchmark.harness import Contender, Program, UnavailableError, alternate
from experiments.benchmark.report import Report
from experiments.multiply_adds import multiply_adds
from mmcl_jax.data.layouts import LAYOUTS
from mmcl_jax.models import folded
from mmcl_jax.models.ctrgcn import CTRGCN
from mmcl_jax.models.ctrsgcn import CTRSGCN
from mmcl_jax.models.graphs import hierarchical_adjacency, relative_positions, spatial_adjacency
from mmcl_jax.models.hdgcn import HDGCN
from mmcl_jax.models.infogcn import InfoGCN
from mmcl_jax.models.layers import BatchNorm
from mmcl_jax.predictor import Predictor
from mmcl_jax.pytorch.names import ctrgcn_entries, ctrsgcn_entries, hdgcn_entries, infogcn_entries
from mmcl_jax.pytorch.state_dicts import Entry, to_torch
from mmcl_jax.runtime.backend import HASTY, tune_compiler
from mmcl_jax.runtime.errors import ConfigError
from mmcl_jax.runtime.options import model_width, positive

CLASSES, BODIES, FRAMES, CHANNELS = 120, 2, 64, 3
_LAYOUT = LAYOUTS["ntu"]
_TWO_PEOPLE = 0.3  # share of a mixed batch
_CASES = ("one", "two", "many")
_TOLERANCE = {"float32": 1e-4, "TF32": 2e-2, "bfloat16": 1e-1}


class Measured(NamedTuple):
    """A backbone that can be measured.

    Attributes:
      title: its name in titles.
      module: makes ours from the number of classes, `graph` and base_channels.
      graph: what our module and PyTorch's are made with: adjacency matrices or relative positions.
      entries: PyTorch's names of the variables, for base_channels.
      baselines: order of operations -> file in `experiments.pytorch_baselines` and class.
    """

    title: str
    module: Callable[..., Any]
    graph: np.ndarray
    entries: Callable[..., list[Entry]]
    baselines: dict[str, tuple[str, str]]


MEASURED = {
    "ctrgcn": Measured(
        "CTR-GCN",
        CTRGCN,
        spatial_adjacency(_LAYOUT),
        ctrgcn_entries,
        {"as released": ("gcn", "ReleasedCTRGCN"), "mean first": ("gcn", "CTRGCN")},
    ),
    "ctrsgcn": Measured(
        "CTRS-GCN",
        CTRSGCN,
        np.stack([np.eye(_LAYOUT.num_joints, dtype=np.float32)] * 3),
        ctrsgcn_entries,
        {"as released": ("gcn", "CTRSGCN")},
    ),
    "hdgcn": Measured(
        "HD-GCN", HDGCN, hierarchical_adjacency(_LAYOUT, 2), hdgcn_entries, {"as released": ("hdgcn", "HDGCN")}
    ),
    "infogcn": Measured(
        "Info-GCN",
        functools.partial(InfoGCN, latent_noise=0.0),
        relative_positions(_LAYOUT, 8),
        infogcn_entries,
        {"as released": ("infogcn", "InfoGCN")},
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", choices=MEASURED, default="ctrgcn", help="the model (default %(default)s)")
    parser.add_argument(
        "--cases", nargs="+", choices=_CASES, default=list(_CASES), help="one clip of one person, of two, or many clips"
    )
    parser.add_argument("--rounds", type=positive, default=9, help="turns of each contender (default %(default)s)")
    parser.add_argument("--turn-seconds", type=float, default=0.5, help="length of a turn (default %(default)s)")
    parser.add_argument(
        "--precisions", nargs="+", choices=_TOLERANCE, default=list(_TOLERANCE), help="on a GPU; default all, in turn"
    )
    parser.add_argument(
        "--base-channels", type=model_width, default=64, help="width of the first blocks (default %(default)s)"
    )
    parser.add_argument(
        "--no-compile", action="store_true", help="leave torch.compile out: it takes minutes to compile"
    )
    parser.add_argument(
        "--onnx-only", action="store_true", help="only ONNX Runtime, on a CPU; ratios are to our file's time"
    )


def run(options: argparse.Namespace, report: Report) -> None:
    backend = report.machine.backend
    if options.onnx_only and backend != "cpu":
        raise ConfigError(f"--onnx-only measures on a CPU, this is a {backend}; set JAX_PLATFORMS=cpu")
    model = {"backbone": options.backbone, "base_channels": options.base_channels}
    variables = machine.measured(functools.partial(random_variables, **model))
    for title, bodies, precision in _cases(backend, options.cases, options.precisions):
        shared = {"bodies": bodies, **model, "variables": variables}
        if options.backbone != "ctrgcn":
            title = f"{title}, {MEASURED[options.backbone].title}"
        contenders = _contenders(shared, precision, backend, compiled=not options.no_compile)
        timings = alternate(
            [one for one in contenders if one.make in _ON_ONNX_RUNTIME] if options.onnx_only else contenders,
            rounds=options.rounds,
            turn_seconds=options.turn_seconds,
            tolerance=_TOLERANCE[precision],
            ready_within=options.ready_within,
        )
        ceiling = report.machine.ceilings.products[precision]
        report.timings(title, timings, units=len(bodies), unit="clip", ceiling=ceiling, real_bodies=sum(bodies))


def _cases(backend: str, cases: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, tuple[int, ...], str]]:
    """Title, number of people of each clip, precision."""
    count = 32 if backend == "cpu" else 256
    mixed = tuple(2 if i < round(_TWO_PEOPLE * count) else 1 for i in range(count))
    known = {
        "one": ("One clip, one person", (1,)),
        "two": ("One clip, two people", (2,)),
        "many": (f"{count} clips, {mixed.count(2)} of two people", mixed),
    }
    if backend == "cpu":
        return [(*known[case], "float32") for case in cases]
    return [(f"{known[case][0]}, {precision}", known[case][1], precision) for precision in precisions for case in cases]


def _contenders(shared: dict[str, Any], precision: str, backend: str, *, compiled: bool) -> list[Contender]:
    contenders = [Contender("this library", jax_program, {**shared, "precision": precision})]
    if backend == "cpu":
        contenders.append(Contender("ONNX Runtime, this library", exported_program, shared))
    for order in MEASURED[shared["backbone"]].baselines:
        ordered = {**shared, "order": order}
        torch_options = {**ordered, "precision": precision}
        contenders.append(Contender(f"PyTorch eager, {order}", torch_program, {**torch_options, "compiled": False}))
        if compiled:
            contenders.append(Contender(f"torch.compile, {order}", torch_program, {**torch_options, "compiled": True}))
        if backend == "cpu":
            contenders.append(Contender(f"ONNX Runtime, {order}", onnx_program, ordered))
    return contenders


def make_model(backbone: str, base_channels: int) -> Any:
    """This library's module of a key of `MEASURED`."""
    return MEASURED[backbone].module(CLASSES, MEASURED[backbone].graph, base_channels)


def random_variables(backbone: str, base_channels: int) -> dict:
    """The model's variables, drawn from seed 0: every contender's weights.

    The batch norms have the statistics of some clips, as training would leave them: else ten blocks would blow
    activations, and with them the rounding that differs between the programs, up at will.
    """
    model = make_model(backbone, base_channels)
    clips = random_clips((2, 2))
    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name in ("scale", "alpha"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        deviation = leaf.shape[-2] ** -0.5 if "kernel" in name else 0.1
        return rng.normal(0, deviation, leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), clips)
    params = jax.tree_util.tree_map_with_path(draw, shapes["params"])
    before = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes["batch_stats"])
    train = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]), compiler_options=HASTY)
    _, after = train({"params": params, "batch_stats": before}, clips)
    batch_stats = jax.tree.map(lambda leaf: np.asarray(leaf) / (1 - BatchNorm.momentum), after["batch_stats"])
    return {"params": params, "batch_stats": batch_stats}


def random_clips(bodies: tuple[int, ...]) -> np.ndarray:
    """Clips `[N, M, T, V, C]` from seed 1; absent bodies are zero."""
    shape = (len(bodies), BODIES, FRAMES, _LAYOUT.num_joints, CHANNELS)
    clips = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    clips[np.arange(BODIES) >= np.array(bodies)[:, None]] = 0
    return clips


def jax_program(bodies: tuple[int, ...], backbone: str, base_channels: int, variables: dict, precision: str) -> Program:
    """This library's predictor."""
    tune_compiler()
    if jax.default_backend() == "gpu":
        jax.config.update("jax_default_matmul_precision", "highest" if precision == "float32" else "default")
    model = make_model(backbone, base_channels)
    predictor = Predictor(model, skips_absent=True, dtype=jnp.bfloat16 if precision == "bfloat16" else None)
    clips, present = jax.device_put((random_clips(bodies), np.array(bodies, np.int32)))
    prepare = jax.jit(predictor.prepare, static_argnums=1, compiler_options=HASTY)
    prepared = prepare(variables, clips.shape[1:])
    predict = jax.jit(predictor.logits)
    embed, trunk = (
        functools.partial(folded.twin_of(model).apply, train=False, method=method) for method in ("embed", "trunk")
    )
    channels = jax.eval_shape(embed, prepared["variables"], clips).shape[0]
    embedded = jax.ShapeDtypeStruct((channels, 1, 1, FRAMES, _LAYOUT.num_joints), jnp.float32)
    one_body = 2 * multiply_adds(jax.make_jaxpr(trunk)(prepared["variables"], embedded).jaxpr)
    return Program(
        lambda: jax.block_until_ready(predict(prepared, clips, present)),
        np.asarray(predict(prepared, clips, present)),
        {"flops": one_body * sum(bodies)},
    )


def exported_program(bodies: tuple[int, ...], backbone: str, base_channels: int, variables: dict) -> Program:
    """ONNX Runtime on the file that this library exports, for transformed clips, on the CPU."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(f"no {error.name}; pip install '.[onnx]'") from error
    try:
        from mmcl_jax.config import Config, ModelConfig
        from mmcl_jax.data.records import DatasetInfo
        from mmcl_jax.deploy.onnx_model import to_onnx
        from mmcl_jax.description import Description
        from mmcl_jax.trained_model import TrainedModel
    except ImportError as error:
        raise UnavailableError(f"no {error.name}; pip install '.'") from error

    info = DatasetInfo("random", "ntu", "meters", tuple(f"class {label}" for label in range(CLASSES)))
    config = Config(model=ModelConfig(backbone=backbone, base_channels=base_channels))
    description = Description(config, info, BODIES, centered=True)
    model = to_onnx(TrainedModel(description, variables), features=True, logits=True)  # as the other contenders
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {"skeleton": random_clips(bodies)}
    return Program(lambda: session.run(None, inputs), session.run(None, inputs)[0])


def _torch_model(bodies: tuple[int, ...], backbone: str, base_channels: int, variables: dict, order: str):
    """The PyTorch model in evaluation, its clips `[N, C, T, V, M]`, and the FLOPs of its products and convolutions."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    measured = MEASURED[backbone]
    file, kind = measured.baselines[order]
    make = getattr(importlib.import_module(f"experiments.pytorch_baselines.{file}"), kind)
    model = make(CLASSES, torch.tensor(measured.graph), BODIES, CHANNELS, base_channels).eval().requires_grad_(False)
    weights = to_torch(variables, measured.entries(base_channels))
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    clips = torch.tensor(random_clips(bodies).transpose(0, 4, 2, 3, 1).copy())
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(clips)
    return model, clips, counter.get_total_flops()


def torch_program(
    bodies: tuple[int, ...],
    backbone: str,
    base_channels: int,
    variables: dict,
    order: str,
    precision: str,
    compiled: bool,
) -> Program:
    """PyTorch, on the GPU where there is one; bfloat16 is its autocast."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if compiled and device == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        raise UnavailableError("torch.compile needs a C++ compiler on a CPU; install g++")
    if device == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "TF32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "TF32"
    model, clips, flops = _torch_model(bodies, backbone, base_channels, variables, order)
    model, clips = model.to(device), clips.to(device)
    function = torch.compile(model) if compiled else model

    @torch.inference_mode()
    def work() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = function(clips)
        if device == "cuda":
            torch.cuda.synchronize()
        return logits

    return Program(work, work().float().cpu().numpy(), {"flops": flops, "threads": torch.get_num_threads()})


def onnx_program(bodies: tuple[int, ...], backbone: str, base_channels: int, variables: dict, order: str) -> Program:
    """ONNX Runtime on the exported PyTorch model, on the CPU, with its own choice of threads."""
    try:
        import onnx  # noqa: F401  (the exporter needs it)
        import onnxruntime
        import torch
    except ImportError as error:
        raise UnavailableError(f"no {error.name}; pip install '.[onnx,torch]'") from error

    model, clips, flops = _torch_model(bodies, backbone, base_channels, variables, order)
    exported = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # that this exporter, which needs no further package, is the old one
        torch.onnx.export(model, (clips,), exported, dynamo=False, input_names=["clips"], output_names=["logits"])
    session = onnxruntime.InferenceSession(exported.getvalue(), providers=["CPUExecutionProvider"])
    inputs = {"clips": clips.numpy()}
    return Program(lambda: session.run(None, inputs), session.run(None, inputs)[0], {"flops": flops})


_ON_ONNX_RUNTIME = (exported_program, onnx_program)
