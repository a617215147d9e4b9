"""Several processes as one run: how they find each other, agree, and end together when one of them fails.

What they compute together is a matter of the mesh (`sharding`) and of the batches (`input_pipeline`). This file
does what JAX leaves to the program: when one process fails, the others would wait in a collective operation forever.
"""

import contextlib
import hashlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from mmcl_jax.runtime import locks, sharding
from mmcl_jax.runtime.errors import MMCLError, is_memory_full

# How many tasks the launcher started; a single task need not look for others.
_TASK_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
# A pod in Kubernetes belongs to a run of several processes if it is part of an indexed job or of a TPU slice.
_IN_KUBERNETES = "KUBERNETES_SERVICE_HOST"
_JOB_INDEX = "JOB_COMPLETION_INDEX"
_TPU_WORKERS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")

_NO_PROXY = "no_grpc_proxy"  # where gRPC looks before `no_proxy`

# A host that is silent for this long is lost, and the others end. A busy or suspended machine may pause for minutes.
_HEARTBEAT_SECONDS = 200
_COMPILE_SECONDS = 3600
_barriers = itertools.count()  # all processes come to them in the same order
_FAILURE = "mmcl_jax/failure"
_POLL_SECONDS = 1.0
_LINGER_SECONDS = 3 * _POLL_SECONDS


class DistributedError(MMCLError, RuntimeError):
    """The processes of a run cannot find each other, or were started differently."""


def join(coordinator_address: str | None, process_id: int | None, num_processes: int | None) -> None:
    """Joins this process with the others of its run, before any device is used.

    Without arguments JAX looks for a cluster that it knows (SLURM, Open MPI, Kubernetes, TPU pods); without one
    the process works by itself, as it does with `num_processes` 1. On CPUs the processes talk through gloo.

    Args:
      coordinator_address: host:port of process 0, reachable from all.
      process_id: from 0.
      num_processes: of the run.

    Raises:
      DistributedError: arguments are missing, or the others did not come.
    """
    given = [value is not None for value in (coordinator_address, process_id, num_processes)]
    if num_processes == 1 or (not any(given) and not _in_cluster()):
        return
    _connect_directly(coordinator_address)
    try:
        jax.distributed.initialize(
            coordinator_address, num_processes, process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
        )
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        if not any(given) and _JOB_INDEX not in os.environ and isinstance(error, ValueError):
            return  # no cluster that JAX knows
        raise DistributedError(
            f"the processes of this run did not find each other ({_first_line(error)}). Give each process "
            "--coordinator_address=HOST:PORT (of process 0), --process_id (from 0) and --num_processes; in a "
            "Kubernetes job install jax[k8s] instead; --num_processes=1 runs this process by itself"
        ) from error
    if jax.default_backend() == "cpu":
        _open_channels()


def _connect_directly(coordinator_address: str | None) -> None:
    """Keeps gRPC from asking a proxy of the environment (`http_proxy`) for a coordinator on this machine."""
    host = (coordinator_address or "").rpartition(":")[0]
    if host == "localhost" or host.startswith("127."):
        others = os.environ.get(_NO_PROXY, os.environ.get("no_proxy"))
        os.environ[_NO_PROXY] = ",".join(filter(None, [others, host]))


def _open_channels() -> None:
    """Opens gloo's channels between all devices while no process is late.

    Opening one fails where a process comes more than 30 seconds after the others; once open, they wait for each other.
    """
    mesh = sharding.data_mesh()
    flags = np.zeros(jax.local_device_count())
    placed = jax.make_array_from_process_local_data(sharding.over_clips(mesh), flags)
    jax.block_until_ready(jax.jit(jnp.sum, out_shardings=sharding.replicated(mesh))(placed))
    multihost_utils.process_allgather(flags)


def compile_together(step: Any, *arguments: Any) -> Any:
    """A `steps.Step` compiled for `arguments`, in every process before any runs it.

    Its channels between the processes may not be open yet.
    """
    compiled = step.compile(*arguments)
    client = _client()
    if client is not None:
        client.wait_at_barrier(f"mmcl_jax/compiled/{next(_barriers)}", _COMPILE_SECONDS * 1000)
    return compiled


def _in_cluster() -> bool:
    if any(os.environ.get(name) == "1" for name in _TASK_COUNTS):
        return False
    return _IN_KUBERNETES not in os.environ or any(name in os.environ for name in (_JOB_INDEX, *_TPU_WORKERS))


def check_same(what: str, value: str) -> None:
    """Waits for every process. Raises: DistributedError in all of them if `value` differs from that of process 0."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest)
    others = np.flatnonzero((digests != digests[0]).any(axis=1)).tolist()
    if others:
        raise DistributedError(
            f"{what}: processes {others} differ from process 0; start all processes with the same command, "
            "code and records, and with --workdir on a disk that they share"
        )


@contextlib.contextmanager
def shared_fate() -> Iterator[None]:
    """A failure in here ends every process of the run with its message; a failure in another process ends this one.

    Raises:
      DistributedError: a device or another process failed, and no process gave a reason.
      JaxRuntimeError: the memory of a device of this process is full.
    """
    client = _client()
    if client is None:
        yield
        return
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(client, done), daemon=True)
    watch.start()
    try:
        yield
    except SystemExit:  # all processes exit together, or this one has given the reason
        raise
    except jax.errors.JaxRuntimeError as error:
        if is_memory_full(error):  # its own failure, and the message says what to do
            done.set()
            _announce(client, _first_line(error))
            raise
        time.sleep(_LINGER_SECONDS)  # perhaps another process failed: then the watch ends this one with its message
        done.set()
        message = (
            f"a device or another process of the run failed ({_first_line(error)}); start all processes again: the run "
            "resumes from its last complete checkpoint"
        )
        _announce(client, message)
        raise DistributedError(message) from error
    except BaseException as error:
        done.set()
        _announce(client, f"{type(error).__name__}: {error}")
        if isinstance(error, Exception):
            raise
        end_now("interrupted")
    finally:
        done.set()
        watch.join()


def _announce(client, what: str) -> None:
    """Tells the others, unless another failed first; waits until they know, because they ask process 0."""
    message = f"process {jax.process_index()} of this run failed: {what}"
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another process was first, or the coordinator is gone
        client.key_value_set(_FAILURE, message)
    time.sleep(_LINGER_SECONDS)


def _watch(client, done: threading.Event) -> None:
    while not done.wait(_POLL_SECONDS):
        try:
            message = client.key_value_try_get(_FAILURE)
        except jax.errors.JaxRuntimeError:  # nothing yet; where the coordinator is gone, JAX ends the process
            continue
        if jax.process_index() == 0:
            time.sleep(_LINGER_SECONDS)
        if not done.is_set():
            end_now(message)


def end_now(message: str) -> None:
    """Ends the process at once with status 1. Leaving by the main thread would wait for the other processes; and after
    a failed write, threads of Orbax print dozens of tracebacks."""
    locks.release_all()
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(2, f"\nerror: {message}\n".encode(errors="backslashreplace"))  # one write: no thread gets in between
    os._exit(1)


def _client():
    """The client of JAX's coordination service, which has no public name; None in a run of one process."""
    from jax._src import distributed

    return distributed.global_state.client


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def quiet_unless_first() -> None:
    """Of several processes, only the first reports progress; all report warnings and errors."""
    if jax.process_index():
        logging.set_verbosity(logging.WARNING)
