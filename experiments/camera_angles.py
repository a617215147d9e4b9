"""Accuracy of models of `configs/any_camera.py` on the test clips, seen by fixed cameras around the person.

    python -m experiments.camera_angles WORKDIR [WORKDIR ...] [--yaws=-135,-90,-45,0,45,90,135,180]
        [--pitches=5,45] [--distance=4]

A yaw of 0 sees what the sensor saw; 90 sees the person from the side, 180 from behind. A pitch looks down; training
uses -10 to 30 degrees, so 45 is a camera that no training clip had. Several workdirs are fused by the mean of their
probabilities. The poses have no errors here: what a pose estimator costs, `experiments.video_accuracy` measures.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from experiments.markdown import markdown_table
from mmcl_jax import checkpoints, evaluate
from mmcl_jax.config import Config
from mmcl_jax.data.camera import CameraOptions
from mmcl_jax.data.records import Records
from mmcl_jax.run_log import read_workdir_json
from mmcl_jax.runtime import sharding
from mmcl_jax.runtime.errors import ConfigError, plain_errors


def read_config(workdir: pathlib.Path) -> Config:
    """The config of a workdir that random cameras trained. Raises: WorkdirError, ConfigError."""
    from mmcl_jax.config import get_config

    config = get_config()
    stored = read_workdir_json(workdir / "config.json")
    stored.pop("clips", None)
    config.update(stored)
    read = Config.of(config)
    if read.data.camera.views == "none":
        raise ConfigError(f"{workdir}: trained without data.camera.views, so no camera can be put before its clips")
    return read


def scores_of(workdir: pathlib.Path, cameras: Sequence[CameraOptions], records: Records | None = None) -> list:
    """The evaluations of a workdir's test clips by each of the cameras. Raises what `evaluate_workdir` raises."""
    config, found, mesh = read_config(workdir), [], sharding.data_mesh()
    variables = None
    for camera in cameras:
        seen = dataclasses.replace(config, data=dataclasses.replace(config.data, camera=camera))
        evaluator = evaluate.Evaluator(seen, mesh, records=records)
        if variables is None:
            _, variables = checkpoints.restore_skeleton(workdir, evaluator.template())
        found.append(evaluator.evaluate(variables, "test"))
    return found


def accuracy(evaluations: Sequence[evaluate.Evaluation]) -> float:
    """Share of clips that the fused models name rightly."""
    fused = sum(np.asarray(jax.nn.softmax(found.scores, axis=-1)) for found in evaluations)
    return float((np.argmax(fused, axis=-1) == evaluations[0].labels).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path, metavar="WORKDIR")
    parser.add_argument("--yaws", type=_numbers, default=_numbers("-135,-90,-45,0,45,90,135,180"), help="degrees")
    parser.add_argument("--pitches", type=_numbers, default=_numbers("5,45"), help="degrees")
    parser.add_argument("--distance", type=float, default=4.0, help="meters, for a trunk of half a meter")
    options = parser.parse_args(arguments)
    with plain_errors():
        first = read_config(options.workdirs[0]).data.camera
        places = [(pitch, yaw) for pitch in options.pitches for yaw in options.yaws]
        cameras = [
            dataclasses.replace(first, test_pitch=pitch, test_yaw=yaw, test_distance=options.distance)
            for pitch, yaw in places
        ]
        by_run = [scores_of(workdir, cameras) for workdir in options.workdirs]
        percents = {place: 100 * accuracy(evaluations) for place, *evaluations in zip(places, *by_run, strict=True)}
        rows = [
            (f"pitch {pitch:g}", *(f"{percents[pitch, yaw]:.1f}" for yaw in options.yaws)) for pitch in options.pitches
        ]
        print(f"\n{len(by_run[0][0].labels)} clips, top-1 %\n")
        print(markdown_table(["yaw", *(f"{yaw:g}" for yaw in options.yaws)], rows))


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
