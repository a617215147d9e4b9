"""Placing arrays on devices: one mesh axis, `data`, over all devices of all processes."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of `devices` (None: all of all processes), its one axis named `data`."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that every device holds whole: parameters, optimiser state, metrics."""
    return NamedSharding(mesh, PartitionSpec())


def over_clips(mesh: Mesh) -> NamedSharding:
    """The sharding of batches: axis 0, the clips, divided over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Places this process's slice of a global batch on its devices."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(over_clips(mesh), x), batch)


def check_batch_size(name: str, size: int) -> None:
    """Raises ValueError, proposing the nearest sizes, unless the devices divide a global batch of `size`."""
    devices = jax.device_count()
    if size < 1 or size % devices:
        lower, upper = size // devices * devices, (size // devices + 1) * devices
        nearest = f"{lower} or {upper}" if lower > 0 else f"{upper}"
        raise ValueError(f"{name}={size} is not divisible by {devices} devices; the nearest sizes are {nearest}")
