"""The synthetic dataset: bodies, scenes, pictures, the stand-in for the VQA answer, the command."""

import inspect
import io

import numpy as np
import pytest
from PIL import Image

from data_prep import synthetic
from data_prep.scenes import actions, figure
from mmcl_jax.data import records
from mmcl_jax.data.layouts import LAYOUTS

LABELS = range(len(actions.ACTIONS))


def _fields(label: int, subject: int = 1, camera: int = 2, replication: int = 1) -> synthetic.ClipFields:
    return synthetic.ClipFields(label + 1, subject, camera, replication)


@pytest.fixture(scope="module")
def clips():
    """One clip of every action."""
    return [synthetic.make_clip(0, _fields(label)) for label in LABELS]


def _answers_by_clip(item: str) -> dict[tuple[int, ...], list[float]]:
    """For every recording, the answers that clips of each action would get with `item` in them."""
    answers = {}
    for fields in synthetic.all_fields(synthetic.SUBJECTS):
        recording = (fields.subject, fields.camera, fields.replication)
        answer = synthetic.holding_answer(item, synthetic.answer_noise(0, fields))
        answers.setdefault(recording, []).append(float(answer[1]))
    return answers


def test_joint_numbers_are_those_of_the_ntu_layout():
    names = LAYOUTS["ntu"].joints
    assert len(names) == figure.NUM_JOINTS
    limbs = {"shoulder": 0, "elbow": 1, "wrist": 2, "hand": 3, "hand tip": 4, "thumb": 5}
    for side, arm in figure.ARMS.items():
        assert {limb: arm[place] for limb, place in limbs.items()} == {
            limb: names.index(f"{side} {limb}") for limb in limbs
        }
    for side, leg in figure.LEGS.items():
        assert leg == tuple(names.index(f"{side} {joint}") for joint in ("hip", "knee", "ankle", "foot"))


@pytest.mark.parametrize("label", LABELS)
def test_bones_keep_their_length_before_noise(label):
    for person in synthetic.perform(0, _fields(label)).scene.figures:
        ends = np.array(figure.BONES)
        lengths = np.linalg.norm(person.joints[:, ends[:, 0]] - person.joints[:, ends[:, 1]], axis=-1)
        assert len(figure.BONES) == figure.NUM_JOINTS - 1
        np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), atol=1e-9)
        assert (lengths > 0.02).all()


@pytest.mark.parametrize("label", LABELS)
def test_motion_is_smooth_and_feet_are_not_under_the_floor(label):
    for person in synthetic.perform(0, _fields(label, subject=4)).scene.figures:
        steps = np.linalg.norm(np.diff(person.joints, axis=0), axis=-1)
        assert steps.max() < 0.4, "a joint jumps between two frames"
        assert person.joints[..., 1].min() > -0.05


def test_two_bones_reach_the_target_or_point_to_it():
    root, pole = np.zeros((1, 3)), np.array([0.0, 0.0, -1.0])
    middle, end = figure.two_bones(root, np.array([[0.1, -0.4, 0.1]]), 0.3, 0.25, pole)
    np.testing.assert_allclose(end, [[0.1, -0.4, 0.1]], atol=1e-6)
    assert middle[0, 2] < 0.05, "the elbow points to the pole"
    _, end = figure.two_bones(root, np.array([[0.0, -2.0, 0.0]]), 0.3, 0.25, pole)
    np.testing.assert_allclose(end, [[0.0, -0.998 * 0.55, 0.0]], atol=1e-6)


def test_skeletons_are_in_ntu_form(clips):
    for clip, action in zip(clips, actions.ACTIONS, strict=True):
        frames, bodies, joints, channels = clip.skeleton.shape
        assert 30 <= frames <= 90
        assert (bodies, joints, channels) == (action.people, 25, 3)
        assert clip.skeleton.dtype == np.float32
        assert np.isfinite(clip.skeleton).all()
        assert not clip.skeleton[0, 0, 1].any(), "joint 2 of the first frame is the origin"
        head_over_feet = clip.skeleton[:, :, figure.HEAD, 1] - clip.skeleton[:, :, figure.ANKLE_LEFT, 1]
        assert ((head_over_feet > 0.8) & (head_over_feet < 1.9)).all()
    assert sum(action.people == 2 for action in actions.ACTIONS) == 2


def test_left_shoulder_is_on_the_left_of_the_mirrored_picture_as_in_kinect():
    waving = actions.ACTIONS.index(next(action for action in actions.ACTIONS if action.name == "wave"))
    for subject in range(1, 6):
        skeleton = synthetic.make_clip(0, _fields(waving, subject)).skeleton
        assert (skeleton[0, 0, figure.SHOULDER_LEFT, 0]) < skeleton[0, 0, figure.SHOULDER_RIGHT, 0]


def test_noise_has_the_size_of_kinect_noise():
    noise = synthetic._sensor_noise(np.random.default_rng(0), (500, 1, 25, 3))
    assert 0.004 < noise.std() < 0.011


def test_same_seed_same_bytes_and_another_seed_another_clip(clips):
    again, other = synthetic.make_clip(0, _fields(2)), synthetic.make_clip(1, _fields(2))
    assert again.skeleton.tobytes() == clips[2].skeleton.tobytes()
    assert again.image == clips[2].image
    assert again.texts[synthetic.TEXT_SET].tobytes() == clips[2].texts[synthetic.TEXT_SET].tobytes()
    assert other.skeleton.tobytes() != clips[2].skeleton.tobytes()
    assert other.image != clips[2].image


def test_names_are_unique():
    names = [fields.name for fields in synthetic.all_fields(synthetic.SUBJECTS)]
    assert len(set(names)) == len(names) == 720
    assert names[0] == "A001S01C1R1"


def test_mosaics_show_a_person_in_every_crop(clips):
    for clip in clips:
        picture = np.asarray(Image.open(io.BytesIO(clip.image)))
        assert picture.shape == (480, 480, 3)
        crops = picture.reshape(480, 5, 96, 3)
        assert (crops.std(axis=(0, 2)).mean(axis=-1) > 15).all()


@pytest.mark.parametrize("item", [item for item, held in actions.OBJECTS.items() if held])
def test_what_is_held_is_seen(item, monkeypatch):
    """Taking the object out of a scene changes the picture."""
    label = next(label for label, action in enumerate(actions.ACTIONS) if item in action.items)
    monkeypatch.setattr(synthetic, "_item", lambda rng, action: item)
    shown = np.asarray(Image.open(io.BytesIO(synthetic.make_clip(0, _fields(label)).image)), dtype=np.int32)
    monkeypatch.setattr(synthetic, "_item", lambda rng, action: "nothing")
    bare = np.asarray(Image.open(io.BytesIO(synthetic.make_clip(0, _fields(label)).image)), dtype=np.int32)
    assert (np.abs(shown - bare).max(axis=-1) > 60).sum() > 500


def test_every_action_may_go_without_or_with_another_object():
    for action in actions.ACTIONS:
        assert len(action.items) > 1
        assert sum(action.items.values()) == pytest.approx(1)
        assert set(action.items) <= set(actions.OBJECTS)


def test_answer_knows_the_object_and_nothing_of_the_label():
    assert list(inspect.signature(synthetic.holding_answer).parameters) == ["item", "noise"]
    for item in actions.OBJECTS:
        answers = _answers_by_clip(item)
        for of_actions in answers.values():
            assert len(of_actions) == len(actions.ACTIONS)
            assert len(set(of_actions)) == 1, "given object and recording, all labels have the same answer"


def test_answer_is_wrong_about_once_in_ten():
    noise = np.random.default_rng(0)
    right = {True: synthetic.YES, False: synthetic.NO}
    for item, held in actions.OBJECTS.items():
        answers = [synthetic.holding_answer(item, noise)[1] for _ in range(1000)]
        assert 0.07 < np.mean(np.array(answers) != right[held]) < 0.13
    assert synthetic.holding_answer("cup", noise).shape == (3,)


def test_text_of_a_clip_is_the_answer_for_its_object(clips):
    for label, clip in enumerate(clips):
        item = synthetic.perform(0, _fields(label)).item
        expected = synthetic.holding_answer(item, synthetic.answer_noise(0, _fields(label)))
        np.testing.assert_array_equal(clip.texts[synthetic.TEXT_SET], expected)
        assert clip.texts[synthetic.TEXT_SET].dtype == np.float32


def test_actions_are_told_apart_by_the_skeleton():
    """Nearest neighbor between subjects: the actions differ, and even this reaches well over chance (1 in 12)."""

    def described(subject):
        features = []
        for label in LABELS:
            for camera in (1, 2, 3):
                skeleton = synthetic.make_clip(0, _fields(label, subject, camera)).skeleton
                body = skeleton[np.linspace(0, len(skeleton) - 1, 16).astype(int), 0]
                # Distances do not depend on the camera; those from hand to head and hand to hand are what hands do.
                pairs = ((7, 3), (11, 3), (7, 11), (7, 0), (11, 0), (19, 0), (15, 0), (3, 15), (3, 19))
                near = np.stack([np.linalg.norm(body[:, a] - body[:, b], axis=-1) for a, b in pairs], axis=-1)
                features.append(near.ravel() if skeleton.shape[1] == 1 else near.ravel() + 10)
        return np.stack(features)

    labels = np.repeat(LABELS, 3)
    reference = np.concatenate([described(subject) for subject in (1, 2, 3, 5)])
    queries = described(4)
    distances = np.linalg.norm(queries[:, None] - reference[None], axis=-1)
    found = np.tile(labels, 4)[distances.argmin(axis=1)]
    assert np.mean(found == labels) > 0.5


def test_command_writes_records_that_training_reads(tmp_path):
    synthetic.main(["--out", str(tmp_path / "records"), "--subjects", "4"])
    opened = records.Records(tmp_path / "records")
    assert len(opened) == 12 * 4 * 3 * 2
    assert opened.info.dataset == "synthetic"
    assert len(opened.select("xsub", "train")) == 216
    assert len(opened.select("xsub", "test")) == 72
    clip = synthetic.make_clip(0, synthetic.all_fields(4)[100])
    np.testing.assert_array_equal(opened.skeleton(100), clip.skeleton.transpose(1, 0, 2, 3))
    assert opened.image(100, 240).shape == (240, 240, 3)
    np.testing.assert_array_equal(opened.text(100, synthetic.TEXT_SET), clip.texts[synthetic.TEXT_SET])
    with pytest.raises(SystemExit, match="exists already"):
        synthetic.main(["--out", str(tmp_path / "records"), "--subjects", "1"])


def test_command_refuses_no_subjects(tmp_path, capsys):
    with pytest.raises(SystemExit):
        synthetic.main(["--out", str(tmp_path / "records"), "--subjects", "0"])
    assert "--subjects 0" in capsys.readouterr().err
