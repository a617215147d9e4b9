"""Files appear whole or not at all."""

import os

import numpy as np
import pytest

from mmcl_jax.runtime import arrays, files
from mmcl_jax.runtime.files import whole_file, write_whole


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "file.npz"
    path.write_text("old")
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, array=np.arange(3))
        assert path.read_text() == "old"
    with np.load(path) as stored:
        np.testing.assert_array_equal(stored["array"], np.arange(3))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_nothing_behind(tmp_path, error):
    path = tmp_path / "file"
    write_whole(path, "old")
    with pytest.raises(error), whole_file(path) as unfinished:
        unfinished.write_text("ne")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("contents", ["first\r\nsecond é\n", b"\x00\xff"])
def test_contents_are_written_as_they_are(tmp_path, contents):
    path = tmp_path / "missing" / "file"
    write_whole(path, contents)
    assert path.read_bytes() == (contents.encode() if isinstance(contents, str) else contents)


def test_two_writers_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "file"
    with whole_file(path) as first, whole_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the last one to finish
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_read_with_or_without_a_mark_and_every_damage_is_one_error(tmp_path):
    path = tmp_path / "a.json"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + '{"a": "é"}'.encode())
        assert files.read_json(path) == {"a": "é"}
    for contents, message in (
        (b"{", "Expecting"),
        (b"\xff", "decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 200 + b"]" * 200, "nested too deeply"),
        (b"9" * 5000, "digits"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    ):
        path.write_bytes(contents)
        with pytest.raises(ValueError, match=message):
            files.read_json(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (files.read_text, files.read_json, arrays.read_arrays, arrays.read_array):
        with pytest.raises(ValueError, match="not a regular file"):
            read(tmp_path / "pipe")


def test_every_damage_of_an_archive_of_arrays_is_one_error(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(20), b=np.array(["x", "y"]))
    sound = path.read_bytes()
    assert list(arrays.read_arrays(path)) == ["a", "b"] and list(arrays.read_arrays(path, ("b", "c"))) == ["b"]
    with pytest.raises(ValueError, match="bytes declared"):
        arrays.read_arrays(path, largest=10)
    for place in range(0, len(sound), 3):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 0x21]) + sound[place + 1 :])
        try:
            read = arrays.read_arrays(path)
        except ValueError:
            continue
        assert all(np.array_equal(read[name], value) for name, value in (("a", np.arange(20)),) if name in read), place
    np.savez(path, a=np.array([None], dtype=object))
    with pytest.raises(ValueError, match="Object arrays"):
        arrays.read_arrays(path)
