"""Clips on the devices: the batches drawn from them equal streamed ones, and clips that do not fit are refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl_jax import steps
from mmcl_jax.batches import check_room, fields, resident_clips, train_batches
from mmcl_jax.data import resident
from mmcl_jax.data.input_pipeline import Fields, ReadOptions, read_clip
from mmcl_jax.data.records import Records
from mmcl_jax.runtime import sharding
from mmcl_jax.task import build_training_task
from tests.helpers.runs import STEPS_PER_EPOCH, tiny_config


def _batches(config, span, image_features=None):
    """Batches as a step sees them."""
    task = build_training_task(config)
    mesh = sharding.data_mesh()
    clips = resident_clips(task, mesh, image_features)
    draw = jax.jit(steps.draw)
    for batch in train_batches(task, span, image_features):
        yield jax.tree.map(np.asarray, draw(sharding.place_batch(batch, mesh), clips))


@pytest.mark.parametrize(
    "changes",
    [
        {"data__storage": "float32"},
        {"data__storage": "float16", "loss__contrastive_weight": 0.0},
        {"data__storage": "float16", "model__image_encoder_frozen": True, "data__host_memory_mb": 5},
    ],
)
def test_a_step_sees_the_same_batch_streamed_or_drawn_on_the_device(tiny_records, changes):
    config = functools.partial(tiny_config, tiny_records, **changes)
    features = None
    if changes.get("model__image_encoder_frozen"):
        features = {row: np.full(256, row, np.float32) for row in range(36)}
    span = STEPS_PER_EPOCH - 2, STEPS_PER_EPOCH + 3  # from the middle of an epoch into the next
    streamed = list(_batches(config(), span, features))
    drawn = list(_batches(config(data__device_resident=True), span, features))
    assert len(streamed) == len(drawn) == 5
    for one, other in zip(streamed, drawn, strict=True):
        assert one.keys() == other.keys() and ("image" in one) == (changes.get("loss__contrastive_weight") != 0)
        assert one["skeleton"].dtype == changes["data__storage"]
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_float16_rounds_as_stated(tiny_records):
    records = Records(tiny_records)
    for row in range(3):
        whole, half = (read_clip(records, row, Fields(storage=name))["skeleton"] for name in ("float32", "float16"))
        assert (whole.dtype, half.dtype) == (np.float32, np.float16)
        error = np.abs(half.astype(np.float32) - whole)
        assert 0 < error.max() < 0.001
        assert (error <= np.maximum(np.abs(whole) * 2.0**-11, 2.0**-25)).all()


def test_coordinates_that_float16_cannot_hold_are_named(tiny_records, monkeypatch):
    records = Records(tiny_records)
    monkeypatch.setattr(records, "skeleton", lambda _row: np.full((1, 4, 25, 3), 7e4, np.float32))
    read_clip(records, 0, Fields())
    with pytest.raises(ValueError, match=r"clip .* has coordinates up to 70000 .*, the largest float16 is 65504; use"):
        read_clip(records, 0, Fields(storage="float16"))


@dataclasses.dataclass
class _Device:
    """A device that reports its memory."""

    stats: dict | None
    platform: str = "gpu"

    def memory_stats(self):
        return self.stats


@dataclasses.dataclass
class _Mesh:
    local_devices: list


def test_clips_that_do_not_fit_are_refused_before_they_are_read(tiny_records):
    task = build_training_task(tiny_config(tiny_records, data__device_resident=True))
    records = task.skeleton.records
    clip = records.max_bodies * records.max_frames * 25 * 3 * 4
    sizes = resident.size(records, task.rows, fields(task))
    assert sizes["skeleton"] == 24 * clip and sizes["image"] == 24 * 96 * 96 * 3
    rows = records.select("xsub", "test")
    needed = sum(sizes.values()) + len(rows) * (clip + 12)
    check = functools.partial(check_room, task, rows)
    check(_Mesh([_Device({"bytes_limit": needed + 5, "bytes_in_use": 5}), _Device(None)]))
    with pytest.raises(ValueError, match=r"device_resident: the clips, .* GB \(skeleton .* do not fit") as caught:
        check(_Mesh([_Device({"bytes_limit": needed + 5, "bytes_in_use": 6})]))
    assert "--config.data.storage=float16" in str(caught.value)
    assert "--config.data.device_resident=False" in str(caught.value)
    half = build_training_task(tiny_config(tiny_records, data__device_resident=True, data__storage="float16"))
    check = functools.partial(check_room, half, rows)
    check(_Mesh([_Device({"bytes_limit": needed - 24 * clip // 2})]))
    with pytest.raises(ValueError, match="do not fit") as caught:
        check(_Mesh([_Device({"bytes_limit": 1000})]))
    assert "float16" not in str(caught.value)


def test_more_than_the_machine_has_is_refused_on_cpus_too():
    with pytest.raises(ValueError, match=r"the clips, 1e\+06 GB .* has .* GB free"):
        resident.check_room({"skeleton": 10**15}, "float32", sharding.data_mesh())


def test_only_a_full_device_is_called_full(tiny_records, monkeypatch):
    load = functools.partial(
        resident.load,
        Records(tiny_records),
        np.arange(4),
        Fields(),
        ReadOptions(),
        sharding.data_mesh(),
        part_size=4,
    )

    def fails() -> np.ndarray:
        raise ValueError("broken inside")

    with monkeypatch.context() as patch:
        patch.setattr(resident.jnp, "zeros", lambda *shape: jax.pure_callback(fails, jax.ShapeDtypeStruct(*shape)))
        with pytest.raises(jax.errors.JaxRuntimeError, match="broken inside"):
            load()
    monkeypatch.setattr(resident, "_shapes", lambda *_: {"skeleton": jax.ShapeDtypeStruct((2**50,), jnp.float32)})
    with pytest.raises(ValueError, match=r"4\.5e\+06 GB .* do not fit on a device .*RESOURCE_EXHAUSTED"):
        load()
