"""Writes records of two invented actions, trains a small model on them and evaluates it: a minute on a CPU."""

import numpy as np

from mmcl_jax.config import get_config, without_images_and_text
from mmcl_jax.data.records import Clip, DatasetInfo, Protocol, write_records
from mmcl_jax.evaluate import evaluate_workdir
from mmcl_jax.train import train

# 48 clips of four people. In the second half of the clips the right wrist (joint 10) waves.
poses = np.random.default_rng(0).normal(scale=0.02, size=(48, 40, 1, 17, 3))  # clip, frame, body, joint, (x, y, z)
poses[24:, :, 0, 10, 1] += 0.5 * np.sin(np.arange(40) / 2)
clips = [
    Clip(f"clip{i}", label=i // 24, subject=i % 4 + 1, camera=1, setup=1, replication=1, skeleton=pose)
    for i, pose in enumerate(poses)
]
protocols = {"xsub": Protocol("subject", train=(1, 2, 3))}  # the fourth person tests
info = DatasetInfo("mine", layout="coco", units="meters", class_names=("stand", "wave"), protocols=protocols)
write_records("records", info, clips)

# A quarter of the published model's width, and a short schedule. mmcl_jax/config.py lists every key.
config = without_images_and_text(get_config())
config.update(data={"records": "records", "window": 16, "repeats": 10}, model={"base_channels": 16})
config.update(batch_size=12, num_epochs=2, warmup_epochs=1, drop_epochs=(1,), learning_rate=0.02)
train(config, "workdir")
print("top-1 accuracy:", evaluate_workdir(config, "workdir")["test"].metrics.top1)
