"""Clips that stay on the devices: they are read once, then every batch is drawn there.

Every device holds all clips, so that it can draw its part of any batch by itself, and every process reads all of them.
If the clips do not fit, a run has to stream them.
"""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.data import input_pipeline
from mmcl_jax.data.input_pipeline import Fields, ReadOptions
from mmcl_jax.data.records import Records
from mmcl_jax.runtime import sharding
from mmcl_jax.runtime.errors import ConfigError, is_memory_full
from mmcl_jax.runtime.progress import progress_bar
from mmcl_jax.runtime.sharding import Device


def load(
    records: Records,
    rows: np.ndarray,
    fields: Fields,
    options: ReadOptions,
    mesh: jax.sharding.Mesh,
    *,
    part_size: int,
) -> dict[str, jax.Array]:
    """The clips `rows`, in this order, on every device: the dict of arrays of one batch of all clips.

    They are read `part_size` at a time, so that the host never holds more.

    Raises: ConfigError if the devices have no room.
    """
    everywhere = sharding.replicated(mesh)
    shapes = _shapes(records, rows, fields)
    blank = jax.jit(
        lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), out_shardings=everywhere
    )
    try:
        clips = jax.block_until_ready(blank())
    except jax.errors.JaxRuntimeError as error:
        if not is_memory_full(error):
            raise
        raise ConfigError(
            f"{_no_room(_bytes(shapes), fields.storage)} ({str(error).strip().splitlines()[0]})"
        ) from error
    write = jax.jit(_write, donate_argnums=0, out_shardings=everywhere)
    parts = input_pipeline.in_parts(records, rows, fields, options, size=part_size)
    bar = progress_bar(total=len(rows), desc="clips to the devices", unit="clip", disable=jax.process_index() > 0)
    with bar:
        for begin, part in parts:
            placed = jax.tree.map(lambda x: jax.make_array_from_process_local_data(everywhere, x), part)
            clips = write(clips, placed, np.int32(begin))
            bar.update(begin + len(part["label"]) - bar.n)
    return clips


def _write(clips: dict[str, jax.Array], part: dict[str, jax.Array], begin: jax.Array) -> dict[str, jax.Array]:
    return {
        name: jax.lax.dynamic_update_slice_in_dim(values, part[name], begin, axis=0) for name, values in clips.items()
    }


def size(records: Records, rows: np.ndarray, fields: Fields) -> dict[str, int]:
    """Bytes that the clips `rows` take on a device, for each field."""
    return _bytes(_shapes(records, rows, fields))


def check_room(sizes: dict[str, int], storage: str, mesh: jax.sharding.Mesh) -> None:
    """Raises ConfigError, with the remedy, if clips of these `sizes` do not fit this process's devices.

    A device that does not report its memory is trusted; CPU devices share the machine's memory.
    """
    for device in mesh.local_devices:
        free = _free_memory(device)
        if free is not None and sum(sizes.values()) > free:
            raise ConfigError(f"{_no_room(sizes, storage)}; {device} has {_gigabytes(free)} free")


def _free_memory(device: Device) -> int | None:
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()
    return None


def _no_room(sizes: dict[str, int], storage: str) -> str:
    parts = ", ".join(
        f"{name} {_gigabytes(count)}" for name, count in sizes.items() if count * 50 > sum(sizes.values())
    )
    halve = "" if storage == "float16" else "halve the skeletons with --config.data.storage=float16, or "
    return (
        f"data.device_resident: the clips, {_gigabytes(sum(sizes.values()))} ({parts}), do not fit on a device beside "
        f"the model; {halve}stream them with --config.data.device_resident=False"
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"


def _shapes(records: Records, rows: np.ndarray, fields: Fields) -> dict[str, jax.ShapeDtypeStruct]:
    first: Any = input_pipeline.read_clip(records, rows[0], fields)
    return {
        name: jax.ShapeDtypeStruct((len(rows), *np.shape(value)), np.asarray(value).dtype)
        for name, value in first.items()
    }


def _bytes(shapes: dict[str, jax.ShapeDtypeStruct]) -> dict[str, int]:
    return {name: leaf.size * leaf.dtype.itemsize for name, leaf in shapes.items()}
