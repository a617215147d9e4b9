"""Calibrates a trained model on its test clips, so that it can answer 'nothing that I know'.

    python -m experiments.calibrate WORKDIR [--cost=0.1] [--draws=4]

The clips of the workdir's test part go through the training transform, `--draws` times each: through random windows
and, where `data.camera.views` says so, random cameras with a pose estimator's errors. On their logits a temperature is
fitted (least cross entropy), and the threshold that refuses the share `--cost` of these clips, whose actions the model
knows. Both are written into the workdir's `model.json`, from where `mmcl_jax.export` and `mmcl_jax.predict` take them.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from mmcl_jax import checkpoints
from mmcl_jax.data.input_pipeline import Fields, ReadOptions, eval_batches
from mmcl_jax.description import read_description, write_description
from mmcl_jax.metrics import cross_entropies
from mmcl_jax.models.mmcl import BACKBONE
from mmcl_jax.predictor import make_predictor
from mmcl_jax.runtime.errors import ConfigError, plain_errors
from mmcl_jax.task import build_skeleton_task

_BATCH = 32
_TEMPERATURES = np.geomspace(0.25, 4, 81)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Temperature and threshold, and on the clips that they were fitted to: accuracy, and share refused."""

    temperature: float
    threshold: float
    top1: float
    refused: float
    top1_of_accepted: float


def calibrate(logits: np.ndarray, labels: np.ndarray, cost: float) -> Calibration:
    """Fits temperature and threshold to logits `[N, K]` of clips whose labels `[N]` are known."""
    losses = [cross_entropies(logits / temperature, labels).mean() for temperature in _TEMPERATURES]
    temperature = float(_TEMPERATURES[int(np.argmin(losses))])
    scaled = logits / temperature
    best = 1 / np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1)
    threshold = float(np.quantile(best, cost))
    right, accepted = logits.argmax(axis=1) == labels, best >= threshold
    return Calibration(
        temperature, threshold, float(right.mean()), float(1 - accepted.mean()), float(right[accepted].mean())
    )


def draw_logits(workdir: pathlib.Path, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[draws * N, K]` and labels of the test clips of a workdir, transformed as in training.

    Raises: WorkdirError, CheckpointError, RecordsError, ConfigError.
    """
    description = read_description(workdir)
    task = build_skeleton_task(description.config, train=True)
    rows = task.records.select(description.config.data.protocol, "test")
    _, variables = checkpoints.read_variables(workdir)
    skeleton = {kind: tree[BACKBONE] for kind, tree in variables.items()}
    info = description.info
    predict = make_predictor(
        skeleton, description.config, layout=info.skeleton_layout, coordinates=info.num_coordinates
    )
    transform, key = jax.jit(jax.vmap(task.transform)), jax.random.key(0)
    logits, labels = [], []
    for batch in eval_batches(task.records, rows, Fields(), ReadOptions(), batch_size=_BATCH, passes=draws):
        real = batch["mask"] > 0
        key, drawn = jax.random.split(key)
        clips = transform(batch["skeleton"], batch["frames"], batch["bodies"], jax.random.split(drawn, _BATCH))
        logits.append(np.asarray(predict(clips, batch["bodies"]))[real])
        labels.append(batch["label"][real])
    return np.concatenate(logits), np.concatenate(labels)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--cost", type=float, default=0.1, help="share of known clips to refuse; default: 0.1")
    parser.add_argument("--draws", type=int, default=4, help="windows of each clip; default: 4")
    options = parser.parse_args(arguments)
    with plain_errors():
        if not 0 <= options.cost < 1 or options.draws < 1:
            raise ConfigError(f"--cost {options.cost}, --draws {options.draws}: give a share below 1, and 1 or more")
        logits, labels = draw_logits(options.workdir, options.draws)
        found = calibrate(logits, labels, options.cost)
        described = read_description(options.workdir)
        changed = dataclasses.replace(described, temperature=found.temperature, threshold=found.threshold)
        write_description(options.workdir, changed)
        print(
            f"{len(labels)} windows of test clips: top-1 {100 * found.top1:.1f} %; temperature {found.temperature:.2f},"
            f" threshold {found.threshold:.2f}: {100 * found.refused:.1f} % refused, top-1 of the others "
            f"{100 * found.top1_of_accepted:.1f} %"
        )


if __name__ == "__main__":
    main()
