"""Placing arrays on devices: one mesh axis, `data`, over all devices of all processes."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmcl_jax.runtime.errors import ConfigError

Device = Any  # jax.Device, which is a variable to type checkers


def data_mesh(devices: Sequence[Device] | None = None) -> Mesh:
    """Returns the mesh of `devices` (None: all of all processes), whose one axis is named `data`.

    The devices of a process are neighbors, in the order of the processes, so that its slice of a batch is contiguous.
    """
    devices = jax.devices() if devices is None else devices
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that every device holds whole: parameters, optimizer state, metrics."""
    return NamedSharding(mesh, PartitionSpec())


def over_clips(mesh: Mesh, *, stacked: bool = False) -> NamedSharding:
    """The sharding of batches: axis 0, the clips, divided over the devices; axis 1 of several batches `stacked`."""
    return NamedSharding(mesh, PartitionSpec(None, "data") if stacked else PartitionSpec("data"))


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh, *, stacked: bool = False) -> dict[str, jax.Array]:
    """Places this process's slice of a global batch, or of several `stacked`, on its devices."""
    where = over_clips(mesh, stacked=stacked)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(where, x), batch)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Places process 0's tree of arrays on every device of all processes."""
    if jax.process_count() == 1:
        return jax.device_put(tree, replicated(mesh))
    tree = multihost_utils.broadcast_one_to_all(tree)
    place = jax.make_array_from_process_local_data
    return jax.tree.map(lambda x: place(replicated(mesh), np.asarray(x)), tree)


def real_rows(values: jax.Array | np.ndarray, mask: np.ndarray) -> np.ndarray:
    """All processes' rows of a batch, without fillers; the same in every process.

    Args:
      values: `[N, ...]`: a global array, or this process's slice of one.
      mask: float32 `[N]`, this process's slice; 0 on fillers.
    """
    if jax.process_count() > 1:
        values, mask = (multihost_utils.process_allgather(array, tiled=True) for array in (values, mask))
    return np.asarray(values)[mask > 0]


def check_batch_size(name: str, size: int) -> None:
    """Raises ConfigError, proposing the nearest sizes, unless the devices divide a global batch of `size`.

    Also raises it if the processes have different numbers of devices, as they could not share the batch evenly.
    """
    devices = jax.device_count()
    if devices != jax.local_device_count() * jax.process_count():
        counts = np.bincount([device.process_index for device in jax.devices()]).tolist()
        raise ConfigError(f"the processes have {counts} devices; start them with the same number each")
    if size < 1 or size % devices:
        lower, upper = size // devices * devices, (size // devices + 1) * devices
        nearest = f"{lower} or {upper}" if lower > 0 else f"{upper}"
        raise ConfigError(f"{name}={size} is not divisible by {devices} devices; the nearest sizes are {nearest}")
