"""A custom dataset: 2-D joints with a confidence, prepared, trained and evaluated as docs/own-layout.md says."""

import jax
import numpy as np
import pytest

from data_prep import synthetic
from data_prep.scenes import figure
from mmcl_jax import evaluate, train
from mmcl_jax.data import records
from mmcl_jax.models import BACKBONES
from mmcl_jax.task import build_skeleton_task
from tests.helpers import documents, runs

pytestmark = pytest.mark.slow

ACTIONS = (7, 8, 9, 11)  # wave, sit down, kick, handshake; the last with two people
SUBJECTS = (1, 2, 3)  # the third tests
# Of COCO's joints, those that follow the five of the face, in its order.
LIMBS = [
    *(figure.SHOULDER_LEFT, figure.SHOULDER_RIGHT, figure.ELBOW_LEFT, figure.ELBOW_RIGHT, figure.WRIST_LEFT),
    *(figure.WRIST_RIGHT, figure.HIP_LEFT, figure.HIP_RIGHT, figure.KNEE_LEFT, figure.KNEE_RIGHT),
    *(figure.ANKLE_LEFT, figure.ANKLE_RIGHT),
]
# From the head's middle to nose, eyes and ears, for one who faces the camera, meters.
FACE = np.array([[0, 0, -0.1], [0.03, 0.03, -0.08], [-0.03, 0.03, -0.08], [0.08, 0, 0], [-0.08, 0, 0]])


def estimated_pose(skeleton: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a pose estimator would see: (T, M, 25, 3) in meters -> (T, M, 17, 3), pixels of 640x480 and a score.

    A joint in twenty is lost in a frame: its last place is repeated with score 0.
    """
    face = skeleton[:, :, figure.HEAD : figure.HEAD + 1] + FACE
    joints = np.concatenate([face, skeleton[:, :, LIMBS]], axis=2)
    pixels = np.array([320, 240]) + 500 * joints[..., :2] * (1, -1) / (joints[..., 2:] + 3.5)
    pixels += rng.normal(scale=1.5, size=pixels.shape)
    score = rng.uniform(0.6, 1, size=pixels.shape[:-1])
    lost = rng.random(score.shape) < 0.05
    for frame in range(1, len(pixels)):
        pixels[frame][lost[frame]] = pixels[frame - 1][lost[frame]]
    return np.concatenate([pixels, np.where(lost, 0, score)[..., np.newaxis]], axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def poses() -> dict[str, dict]:
    """Clip name -> label, subject, pose, of four actions by three subjects, twice."""
    clips = {}
    for label, action in enumerate(ACTIONS):
        for subject in SUBJECTS:
            for replication in (1, 2):
                fields = synthetic.ClipFields(action, subject, camera=2, replication=replication)
                rng = np.random.default_rng([action, subject, replication])
                pose = estimated_pose(synthetic.make_clip(0, fields).skeleton, rng)
                clips[fields.name] = {"label": label, "subject": subject, "pose": pose}
    return clips


@pytest.fixture(scope="module")
def my_dataset(poses, tmp_path_factory):
    """Records that the page's script wrote: 13 joints, a layout and a protocol of their own."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "my_poses").mkdir()
    for name, fields in poses.items():
        np.savez(folder / "my_poses" / f"{name}.npz", **fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(documents.code_blocks()["my_records.py"], "my_records.py", "exec"), {})
    return folder / "data" / "my_dataset"


@pytest.fixture(scope="module")
def coco(poses, tmp_path_factory):
    """Records of all 17 joints, in the layout that is called coco."""
    info = records.DatasetInfo(
        dataset="poses",
        layout="coco",
        channels=("x", "y", "confidence"),
        units="pixels",
        class_names=("wave", "sit down", "kick", "handshake"),
        image_source=None,
        preprocessing="projected, with noise and lost joints",
        protocols={"xsub": records.Protocol("subject", (1, 2))},
    )
    clips = (
        records.Clip(name, fields["label"], fields["subject"], 1, 1, 1, fields["pose"])
        for name, fields in poses.items()
    )
    out = tmp_path_factory.mktemp("records") / "coco"
    records.write_records(out, info, clips)
    return out


def test_the_pages_script_writes_what_it_was_given(my_dataset, poses):
    opened = records.Records(my_dataset)
    assert (len(opened), opened.num_joints, opened.num_channels, opened.max_bodies) == (24, 13, 3, 2)
    assert opened.info.skeleton_layout.joints[1:3] == ("left shoulder", "right shoulder")
    row = 7
    expected = poses[str(opened.index["name"][row])]["pose"][:, :, [0, *range(5, 17)]]
    np.testing.assert_array_equal(opened.skeleton(row), expected.transpose(1, 0, 2, 3))
    assert len(opened.select("xsub", "train")) == 16
    assert set(opened.index["subject"][opened.select("xsub", "test")]) == {3}


def my_config(folder, stream: str, **changes):
    """The page's config, tiny."""
    block = {}
    exec(compile(documents.code_blocks()["configs/my_dataset.py"], "my_dataset.py", "exec"), block)
    config = block["get_config"](stream)
    config.update_from_flattened_dict({**runs.TINY, "data.records": str(folder), **changes})
    return config


# A custom layout in one run, one of the package and every kind of difference in the other.
@pytest.mark.parametrize(("dataset", "stream"), [("my_dataset", "joint"), ("coco", "bone_motion")])
def test_it_trains_and_is_evaluated(dataset, stream, request, monkeypatch, tmp_path):
    documents.add_backbone(monkeypatch)  # compiles in seconds
    config = my_config(request.getfixturevalue(dataset), stream, **{"model.backbone": "tiny_gcn"})
    train.train(config, tmp_path / "run")
    first, last = (float(row["train_loss"]) for row in runs.read_rows(tmp_path / "run"))
    assert 0 < last < first
    trained = runs.read_scores(tmp_path / "run")["scores"]
    assert trained.shape == (8, 4)
    evaluate.evaluate_workdir(config, tmp_path / "run")
    np.testing.assert_allclose(runs.read_scores(tmp_path / "run")["scores"], trained, rtol=1e-5)


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_every_backbone_takes_flat_joints(backbone, coco):
    task = build_skeleton_task(my_config(coco, "joint", **{"model.backbone": backbone}), train=False)
    clips = jax.ShapeDtypeStruct((2, 2, 16, 17, 3), np.float32)
    variables = jax.eval_shape(lambda: task.init(jax.random.key(0)))
    logits, _ = jax.eval_shape(lambda v, x: task.backbone.apply(v, x, train=False), variables, clips)
    assert logits.shape == (2, 4)


def test_the_view_recipe_is_refused_before_anything_starts(coco, tmp_path):
    config = my_config(coco, "joint", **{"data.sampling": "view_normalised"})
    with pytest.raises(ValueError, match="'view_normalised' rotates clips about the x and y axes"):
        train.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
