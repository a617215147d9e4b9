"""Numbers of things in messages."""

from mmcl_jax.runtime.words import counted


def test_one_thing_is_singular():
    assert [counted(number, "clip") for number in (0, 1, 2, 1000)] == ["0 clips", "1 clip", "2 clips", "1,000 clips"]
    assert [counted(number, "clip is", "clips are") for number in (1, 2)] == ["1 clip is", "2 clips are"]
