"""Skeleton files of NTU RGB+D: files made here against a slow oracle, damaged files, the reference outputs.

Tests of the reference outputs and of the real clip run if MMCL_TEST_DATA is set.
"""

import pathlib

import numpy as np
import pytest

from data_prep.formats import sources
from mmcl_jax.data import ntu_skeletons
from tests.helpers import golden, ntu_files, ntu_reference

SEEDS = 200


def preprocess(contents: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """Our result for a file, in the published layout; None if it is refused."""
    try:
        joints = ntu_skeletons.denoise(ntu_skeletons.parse(contents)).joints
        return ntu_reference.flat(joints), ntu_reference.flat(ntu_skeletons.translate(joints))
    except sources.SourceFileError:
        return None


def reference(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        return ntu_reference.preprocess(path)
    except (AssertionError, IndexError, ValueError):
        return None


def assert_same(actual, expected) -> None:
    assert (actual is None) == (expected is None)
    for one, other in zip(actual or (), expected or (), strict=True):
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("first_seed", range(0, SEEDS, 20))
def test_made_up_clips_against_the_oracle(tmp_path, first_seed):
    for seed in range(first_seed, first_seed + 20):
        path = tmp_path / f"{seed}.skeleton"
        path.write_text(ntu_files.random_clip(np.random.default_rng(seed)), newline="")
        assert_same(preprocess(path.read_bytes()), reference(path))


def test_the_made_up_clips_reach_every_branch():
    casts = set()
    for seed in range(SEEDS):
        contents = ntu_files.random_clip(np.random.default_rng(seed)).encode()
        if (joints := preprocess(contents)) is not None:
            clip = ntu_skeletons.parse(contents)
            cast = tuple(min(len(actor), 2) for actor in ntu_skeletons.denoise(clip).bodies)
            casts.add(("bodies", min(len(clip.bodies), 3), cast))
            casts.add(("empty frames", clip.num_tracked < clip.num_frames))
            casts.add(("missing frames", len(joints[0]) < clip.num_tracked))
        else:
            casts.add("refused")
    assert casts >= {("empty frames", True), ("missing frames", True), "refused"}
    assert casts >= {("bodies", 1, (1,)), ("bodies", 2, (1,)), ("bodies", 2, (1, 1)), ("bodies", 2, (2, 0))}
    assert casts >= {("bodies", 3, (1,)), ("bodies", 3, (1, 1)), ("bodies", 3, (2, 1))}


def test_rounding_in_float32_decides_who_of_two_alike_moves_more(tmp_path):
    path = tmp_path / "clip.skeleton"
    first = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        joints = ntu_files.make_joints(rng, 20)
        copy = joints + np.float32(rng.uniform(-1, 1, 3))
        path.write_text(ntu_files.to_text([[(1, a), (2, b)] for a, b in zip(joints, copy, strict=True)]))
        assert_same(preprocess(path.read_bytes()), reference(path))
        first.add(ntu_skeletons.denoise(ntu_skeletons.read(path)).bodies[0][0].id)
    assert first == {b"1", b"2"}


@golden.require_golden
def test_published_preprocessing():
    """The stored `denoised` arrays are translated already (the published code works in place); shapes are as denoised.

    So they are compared after translation; the result of only denoising is compared with the oracle.
    """
    with np.load(golden.golden_folder() / "ntu_preprocess.npz") as stored:
        for path in sorted((golden.golden_folder() / "ntu_raw").glob("*.skeleton")):
            denoised, translated = preprocess(path.read_bytes())
            expected = stored[f"denoised/{path.stem}"]
            np.testing.assert_array_equal(expected, stored[f"translated/{path.stem}"])
            assert denoised.shape == expected.shape
            np.testing.assert_allclose(translated, expected, rtol=0, atol=1e-6)
            np.testing.assert_array_equal(denoised, ntu_reference.preprocess(path)[0])


def test_damaged_files_are_refused_or_read_as_the_oracle_reads_them(tmp_path):
    path = tmp_path / "clip.skeleton"
    refused = 0
    for contents in ntu_files.damaged_files(600):
        result = preprocess(contents)
        refused += result is None
        if result is not None:
            path.write_bytes(contents)
            with np.errstate(all="ignore"):
                assert_same(result, reference(path))
    assert 400 < refused < 600


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: "", "an empty file"),
        (lambda text: text[: len(text) // 2], r"truncated or damaged: frame \d+ of 20 announces 1 bodies"),
        (lambda text: text.replace("20\n", "21\n", 1), "truncated: it ends before frame 21 of 21"),
        (lambda text: text.replace("20\n", "19\n", 1), "28 lines follow the last of 19 frames"),
        (lambda text: text.replace("20\n", "many\n", 1), "line 1 is 'many', expected the number of frames"),
        (lambda text: text.replace("20\n1\n", "20\n999999999\n", 1), "announces 999999999 bodies, but 559 lines"),
        (lambda text: text.replace("\n25\n", "\n24\n", 1), "line 4 is '24', expected 25 joints"),
        (lambda text: text.replace(" 2\n", "\n", 2), "line 3 is .*, expected a body's line of 10 words"),
        (lambda text: text.replace("277.419 ", "", 1), "line 5 is .*expected a joint's line of 12 numbers"),
        (lambda text: text.replace(" 3\n", " 3 \x00\n", 1).replace("0.0535", "0.\x0035"), "binary data in it"),
        (lambda text: "3\n0\n0\n0\n", "nobody in any of its 3 frames"),
        (lambda text: ntu_files.two_persons(11), "all of its 2 bodies are shorter than 12 frames"),
    ],
)
def test_refusals_say_why(spoil, message):
    with pytest.raises(sources.SourceFileError, match=message):
        ntu_skeletons.denoise(ntu_skeletons.parse(spoil(ntu_files.one_person()).encode()))


def test_a_mark_of_utf_8_is_skipped_and_utf_16_is_named():
    text = ntu_files.one_person()
    expected, marked = (ntu_skeletons.parse(text.encode(encoding)) for encoding in ("ascii", "utf-8-sig"))
    np.testing.assert_array_equal(marked.bodies[0].joints, expected.bodies[0].joints)
    with pytest.raises(sources.SourceFileError, match="text in UTF-16, expected UTF-8"):
        ntu_skeletons.parse(text.encode("utf-16"))


def test_ids_beyond_the_floats_stay_apart_and_frames_are_the_file_s():
    first, second = ntu_skeletons.parse(ntu_files.two_persons().encode()).bodies
    assert float(first.id) == float(second.id)
    assert (first.id, second.id) == (b"72057594037931101", b"72057594037931102")
    joints = ntu_files.make_joints(np.random.default_rng(0), 5)
    frames = [[], [(7, joints[0])], [], [(7, joints[1])], []]
    (body,) = ntu_skeletons.parse(ntu_files.to_text(frames).encode()).bodies
    assert (body.start, body.end, body.frames.tolist()) == (0, 1, [1, 3])
    np.testing.assert_allclose(body.joints, joints[:2], rtol=1e-6)
    np.testing.assert_allclose(body.colors, ntu_files.colors_of(joints[:2]), rtol=1e-5)


@pytest.mark.parametrize(
    "word", ["0.1", "-12.5", "3", "-0", ".5", "7.", "1e-5", "-2.5E+3", "0.12345678901234567890", "nan"]
)
def test_numbers_are_rounded_as_python_does(word):
    text = ntu_files.one_person().replace("277.419", "277.419", 1).split("\n")
    words = text[4].split()
    text[4] = " ".join([word, *words[1:]])
    value = ntu_skeletons.parse("\n".join(text).encode()).bodies[0].joints[0, 0, 0]
    np.testing.assert_array_equal(value, np.float32(float(word)))
