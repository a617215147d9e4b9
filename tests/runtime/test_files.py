"""Files appear whole or not at all."""

import numpy as np
import pytest

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
