"""Reading batches: streamed from records, beside a feeder that holds all clips in memory as the released one does.

Clips are random walks with NTU RGB+D 120's numbers of clips, joints and bodies and about its lengths. Both contenders
yield batches of whole, untransformed clips in shuffled order: ours transforms on the device, the released feeder in its
workers. Ours are read by the threads of one process, and by as many other processes as `--workers` names; then clips
that have a mosaic each, a JPEG of smooth noise, which comes as FAM's default encoder takes it. The last table trains a
narrow CTR-GCN from the same records: a whole run's memory (on a CPU, the device's too: activations grow with batch and
width, what is read does not).

The feeder's array is (clips, 300 frames, 2 bodies, 25 joints, 3) in float32, padded with zeros: 180 kB a clip.
"""

import argparse
import contextlib
import functools
import io
import itertools
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from experiments.benchmark.harness import Contender, Program, Timing, UnavailableError, alternate
from experiments.benchmark.report import Report
from mmcl_jax.runtime.options import model_width, positive

_CLIPS = 113_945  # of NTU RGB+D 120
_JOINTS, _CHANNELS, _BODIES, _FRAMES = 25, 3, 2, 300
_MEAN_FRAMES, _TWO_BODIES = 80, 0.2  # mean length; share of clips with a second body
_BATCH = 200
_SEEN_CLIPS, _PICTURE, _GRAIN = 1000, 480, 60  # clips with mosaics; side of a mosaic, and of the noise that it enlarges
_STREAMED = "streamed from records"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=positive, default=4000, help=f"in the records (default 4000; all: {_CLIPS})")
    parser.add_argument("--feeder-clips", type=positive, default=4000, help="in the feeder's array, 180 kB each")
    parser.add_argument("--records", type=pathlib.Path, help="folder for the records, made if missing, and kept")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="processes that read (default 0 1 2)")
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each contender")
    parser.add_argument("--turn-seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument(
        "--width", type=model_width, default=4, help="base_channels of the model that trains (default 4)"
    )
    parser.add_argument("--training-batch", type=positive, default=50, help="clips of its batches (default 50)")


def run(options: argparse.Namespace, report: Report) -> None:
    from mmcl_jax.data.worker_processes import HELD

    if min(options.clips, options.feeder_clips) < _BATCH:
        sys.exit(f"error: --clips and --feeder-clips: expected the {_BATCH} of a batch or more")
    with contextlib.ExitStack() as stack:
        scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        records = options.records or scratch / "records"
        seen = scratch / "seen"
        ahead = 2 + HELD * max(options.workers)  # batches: then the others' workers have ended reading ahead, too
        streaming = [
            Contender(f"{_STREAMED}, {_readers(number)}", _streaming, {**shared, "workers": number, "ahead": ahead})
            for shared in ({"records": records}, {"records": seen, "mosaics": True})
            for number in options.workers
        ]
        feeder = Contender("PyTorch DataLoader, all in memory", _feeder, {"array": scratch / "feeder.npz"})
        shape = {"width": options.width, "batch_size": options.training_batch}
        trains = [Contender("training from records", _training, {"records": records, **shape})]
        if not (records / "info.json").exists():
            write_walks(records, options.clips)
        write_walks(seen, _SEEN_CLIPS, mosaics=True)
        _write_array(scratch / "feeder.npz", options.feeder_clips)
        alternating = functools.partial(
            alternate, rounds=options.rounds, turn_seconds=options.turn_seconds, ready_within=options.ready_within
        )
        timings = alternating([*streaming[: len(options.workers)], feeder])
        report.timings("Batches of 200 clips", timings, units=_BATCH, unit="clip")
        mosaics = alternating(streaming[len(options.workers) :])
        report.timings("Batches of 200 clips with mosaics", mosaics, units=_BATCH, unit="clip")
        trained = alternating(trains)
    title = f"Training CTR-GCN, base_channels {options.width}, batches of {options.training_batch}"
    report.timings(title, trained, units=options.training_batch, unit="clip")
    rows = memory_rows({"": [*timings, *trained], ", mosaics": mosaics})
    title = "Peak resident memory of each process (all of it, libraries and what processes share included)"
    report.table(title, ("", "clips", "GB", "GB of the largest worker"), rows)


def memory_rows(groups: dict[str, Sequence[Timing]]) -> list[tuple[str, ...]]:
    """Name, clips and GB of each contender that ran, and of its largest worker; groups by what is added to the name."""
    return [
        (
            timing.name + suffix,
            f"{timing.details['clips']:,}",
            *(f"{count / 1e9:.2f}" for count in (timing.peak_memory, timing.worker_memory)),
        )
        for suffix, group in groups.items()
        for timing in group
        if not timing.unavailable
    ]


def _readers(workers: int) -> str:
    return {0: "threads", 1: "1 worker"}.get(workers, f"{workers} workers")


def walks(number: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Random walks, float32 `(T, M, V, C)`, of random lengths and numbers of bodies."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        frames = int(np.clip(rng.gamma(6, _MEAN_FRAMES / 6), 20, _FRAMES))
        bodies = 1 + int(rng.random() < _TWO_BODIES)
        steps = rng.standard_normal((frames, bodies, _JOINTS, _CHANNELS), dtype=np.float32)
        yield np.cumsum(0.02 * steps, axis=0, dtype=np.float32)


def write_walks(folder: pathlib.Path, number: int, *, mosaics: bool = False) -> None:
    """Writes records of `number` random walks with NTU RGB+D 120's classes, subjects, cameras and setups.

    With `mosaics`, a picture each, of few that come again and again.
    """
    from mmcl_jax.data.records import Clip, DatasetInfo, write_records

    info = DatasetInfo(
        dataset="ntu",
        layout="ntu",
        units="metres",
        class_names=tuple(f"A{label + 1:03d}" for label in range(120)),
        image_source="drawn" if mosaics else None,
        preprocessing="random walks, no recordings",
    )

    pictures = itertools.cycle(_pictures(16) if mosaics else [None])

    def clips() -> Iterator[Clip]:
        rng = np.random.default_rng(1)
        for place, skeleton in enumerate(walks(number)):
            yield Clip(
                name=f"walk{place:06d}",
                label=int(rng.integers(120)),
                subject=int(rng.integers(1, 107)),
                camera=int(rng.integers(1, 4)),
                setup=int(rng.integers(1, 33)),
                replication=int(rng.integers(1, 3)),
                skeleton=skeleton,
                image=next(pictures),
            )

    write_records(folder, info, clips(), total=number)


def _pictures(number: int) -> list[bytes]:
    """JPEGs of smooth noise."""
    from PIL import Image

    rng, files = np.random.default_rng(2), []
    for _ in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (_GRAIN, _GRAIN, 3), dtype=np.uint8))
        with io.BytesIO() as file:
            coarse.resize((_PICTURE, _PICTURE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            files.append(file.getvalue())
    return files


def _write_array(path: pathlib.Path, number: int) -> None:
    array = np.zeros((number, _FRAMES, _BODIES, _JOINTS, _CHANNELS), np.float32)
    for padded, skeleton in zip(array, walks(number), strict=True):
        padded[: skeleton.shape[0], : skeleton.shape[1]] = skeleton
    np.savez(path, x_train=array)


def _config(records: pathlib.Path, **changes):
    try:
        import grain  # noqa: F401  absent where a benchmark runs with only jax, flax, optax and torch
        import tensorflow_datasets  # noqa: F401

        from configs import ntu120
    except ImportError as error:
        raise UnavailableError(f"{error.name} is missing: pip install .") from error
    config = ntu120.get_config("xsub,joint,skeleton_only").unlock()
    config.update_from_flattened_dict({"data.records": str(records), **changes})
    return config.lock()


def _batches(task):
    from mmcl_jax.batches import train_batches

    return train_batches(task, (0, task.num_steps))


def _streaming(records: pathlib.Path, workers: int = 0, mosaics: bool = False, ahead: int = 1) -> Program:
    changes = {"data.workers": workers, "data.host_memory_mb": 1000 * (1 + workers)}
    config = _config(records, **changes, **({"loss.contrastive_weight": 0.1} if mosaics else {}))
    from mmcl_jax.task import build_training_task

    task = build_training_task(config)
    batches = _batches(task)
    details = {"clips": len(task.skeleton.records), "threads": config.data.threads, "workers": workers}
    return Program(lambda: next(batches), details=details, close=batches.close, ahead=ahead)


def _training(records: pathlib.Path, width: int, batch_size: int) -> Program:
    changes = {"batch_size": batch_size, "model.base_channels": width, "model.batch_norm_group_size": None}
    config = _config(records, **changes, **{"loss.contrastive_group_size": None})
    import jax

    from mmcl_jax import run_state, steps
    from mmcl_jax.runtime import backend, sharding
    from mmcl_jax.task import build_training_task

    backend.tune_compiler()
    task = build_training_task(config)
    batches = _batches(task)
    mesh = sharding.data_mesh(jax.devices()[:1])
    step = steps.compile_step(task.recipe, config.seed, mesh)
    state = sharding.replicate(run_state.create_state(task), mesh)

    def work() -> None:
        nonlocal state
        state = jax.block_until_ready(step(state, sharding.place_batch(next(batches), mesh)))

    return Program(work, details={"clips": len(task.skeleton.records), "base_channels": width})


def _feeder(array: pathlib.Path) -> Program:
    try:
        from torch.utils.data import DataLoader, Dataset
    except ImportError as error:
        raise UnavailableError("torch is missing: pip install torch") from error

    class Clips(Dataset):
        """What the released feeder does before it transforms: the whole array in memory, a clip copied at a time."""

        def __init__(self):
            with np.load(array, allow_pickle=False) as stored:
                self.data = stored["x_train"]

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, place: int):
            return np.array(self.data[place]), place

    data = Clips()

    def forever() -> Iterator:
        while True:
            yield from DataLoader(data, batch_size=_BATCH, shuffle=True, drop_last=True)

    batches = forever()
    return Program(lambda: next(batches), details={"clips": len(data), "workers": 0})
