"""Writes records of two invented actions, trains a small model on them and evaluates it: a minute on a CPU."""

import numpy as np

from mmcl_jax.config import get_config, without_images_and_text
from mmcl_jax.data.records import Clip, DatasetInfo, Protocol, write_records
from mmcl_jax.evaluate import evaluate_workdir
from mmcl_jax.train import train

# 1. Records: 48 clips of four people who stand still or wave (the right wrist, joint 10, goes up and down).
rng, seconds = np.random.default_rng(0), np.arange(40) / 10
info = DatasetInfo("mine", "coco", "meters", ("stand", "wave"), protocols={"xsub": Protocol("subject", (1, 2, 3))})
clips = []
for number, (label, subject) in enumerate([(label, subject) for label in (0, 1) for subject in (1, 2, 3, 4)] * 6):
    pose = rng.normal(scale=0.02, size=(40, 1, 17, 3))  # frames, bodies, joints, (x, y, z)
    pose[:, 0, 10, 1] += 0.5 * label * np.sin(5 * seconds)
    clips.append(Clip(f"clip{number}", label, subject, 1, 1, 1, pose))
write_records("records", info, clips)

# 2. Training: a quarter of the published model's width; every key is in mmcl_jax/config.py.
config = without_images_and_text(get_config())
config.data.update(records="records", window=16, repeats=10)
config.update(batch_size=12, num_epochs=2, warmup_epochs=1, drop_epochs=(1,), learning_rate=0.02)
config.model.base_channels = 16
train(config, "workdir")

# 3. Evaluation on subject 4, whom training never saw.
print("top-1 accuracy:", evaluate_workdir(config, "workdir")["test"].metrics.top1)
