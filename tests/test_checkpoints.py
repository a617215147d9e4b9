"""Checkpoints: bit-identical, whole or absent, and clear errors for those that do not fit."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from mmcl_jax import checkpoints
from mmcl_jax.checkpoints import CheckpointError


class _State(struct.PyTreeNode):
    """The fields of `train.TrainState`."""

    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: tuple
    totals: dict


def _state(step: int, width: int = 5, auxiliary: bool = True) -> _State:
    rng = np.random.default_rng(step)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape).astype(np.float32))

    params = {"backbone": {"kernel": draw(3, width), "bias": draw(width)}}
    batch_stats = {"backbone": {"mean": draw(width)}}
    if auxiliary:
        params |= {"image_encoder": {"kernel": draw(2, 2)}, "alignment": {"kernel": draw(4)}}
        batch_stats |= {"image_encoder": {"mean": draw(2)}}
    return _State(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=({"trace": jax.tree.map(lambda leaf: leaf / 3, params)}, jnp.asarray(step, jnp.int32)),
        totals={"loss": draw(), "first_bad_step": jnp.asarray(-1, jnp.int32)},
    )


def _save(workdir, *states):
    manager = checkpoints.open_manager(workdir)
    for state in states:
        checkpoints.save(manager, state)
    checkpoints.finish(manager)
    manager.close()


def _restore(workdir, template):
    manager = checkpoints.open_manager(workdir)
    state = checkpoints.restore_latest(manager, template)
    manager.close()
    return state


def _assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.parametrize("auxiliary", [True, False])
def test_restored_is_bit_identical(tmp_path, auxiliary):
    state = _state(7, auxiliary=auxiliary)
    _save(tmp_path, state)
    _assert_same(_restore(tmp_path, _state(0, auxiliary=auxiliary)), state)


def test_the_newest_is_restored_and_two_are_kept(tmp_path):
    _save(tmp_path, _state(1), _state(2), _state(3))
    _assert_same(_restore(tmp_path, _state(0)), _state(3))
    assert sorted(path.name for path in checkpoints.folder(tmp_path).iterdir()) == ["2", "3"]


def test_a_half_written_checkpoint_is_ignored(tmp_path):
    _save(tmp_path, _state(1), _state(2))
    folder = checkpoints.folder(tmp_path)
    manager = checkpoints.open_manager(tmp_path)
    temporary = folder / "3.orbax-checkpoint-tmp"
    manager.close()
    shutil.copytree(folder / "2", temporary)
    shutil.rmtree(temporary / "training")
    template = {kind: getattr(_state(0), kind)["backbone"] for kind in ("params", "batch_stats")}
    assert checkpoints.restore_skeleton(tmp_path, template)[0] == 2
    _assert_same(_restore(tmp_path, _state(0)), _state(2))
    assert not temporary.exists()


def test_no_checkpoint_leaves_the_state(tmp_path):
    state = _state(0)
    _assert_same(_restore(tmp_path, state), state)


def test_the_skeleton_is_read_alone(tmp_path):
    state = _state(4)
    _save(tmp_path, state)
    for item in ("auxiliary", "training"):
        shutil.rmtree(checkpoints.folder(tmp_path) / "4" / item)
    expected = {kind: getattr(state, kind)["backbone"] for kind in ("params", "batch_stats")}
    step, variables = checkpoints.restore_skeleton(tmp_path, expected)
    assert step == 4
    _assert_same(variables, expected)


def test_a_checkpoint_of_another_model_is_an_error_that_names_it(tmp_path):
    _save(tmp_path, _state(4))
    folder = str(checkpoints.folder(tmp_path) / "4")
    other = _state(0, width=6)
    with pytest.raises(CheckpointError) as caught:
        _restore(tmp_path, other)
    assert folder in str(caught.value)
    assert "another --workdir" in str(caught.value)
    template = {kind: getattr(other, kind)["backbone"] for kind in ("params", "batch_stats")}
    with pytest.raises(CheckpointError) as caught:
        checkpoints.restore_skeleton(tmp_path, template)
    assert folder in str(caught.value)
    with pytest.raises(CheckpointError):
        _restore(tmp_path, _state(0, auxiliary=False))


def test_a_damaged_checkpoint_is_an_error_that_names_it(tmp_path):
    _save(tmp_path, _state(4))
    folder = checkpoints.folder(tmp_path) / "4"
    shutil.rmtree(folder / "training")
    with pytest.raises(CheckpointError, match="cannot be restored") as caught:
        _restore(tmp_path, _state(0))
    assert str(folder) in str(caught.value)


def test_evaluation_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoints; train first"):
        checkpoints.restore_skeleton(tmp_path, {})
    checkpoints.folder(tmp_path).mkdir()
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        checkpoints.restore_skeleton(tmp_path, {})
