"""How many bodies the programs of training compute, where absent bodies are computed once (`models.packed`).

The number is part of a program's shapes, so there are a few programs, and a batch takes the smallest in which its
bodies fit. Which programs there are depends on the clips and the batch size only, so that runs of all seeds share them,
and which one a step takes on the clips of its batch: both are the same in every process, after every stop, and however
many epochs follow.
"""

import dataclasses
import functools
import itertools

import numpy as np

from mmcl_jax.data.input_pipeline import clip_order, steps_per_epoch

_MOST_PROGRAMS = 3
# Compiling a program takes as long as a hundred steps or more of a narrow model on a CPU, or of a published one on a
# GPU. An additional program has to save more in a short run, so that runs of few steps have one.
_STEPS_TO_COMPILE, _SHORT_RUN = 200, 16  # epochs
_EPOCHS = 50  # whose batches are counted; most recipes have as many
_CLIPS_COUNTED = 2_000_000  # of the batches of these epochs, so that a start does not count for long
_SIZES = 32  # numbers of bodies are multiples of the full number's 32nd part, so that more runs share a program
_WORTHWHILE = 0.95  # of all bodies; above this share all are computed


@dataclasses.dataclass(frozen=True)
class BodyCounts:
    """The bodies of the batches of a run.

    Attributes:
      bodies: how many bodies each training clip has, int `[R]`.
      most: M, the bodies of a padded clip.
      seed, batch_size, repeats: of the order of the clips, see `input_pipeline.clip_order`.
      groups: parts of a batch that are normalized by themselves.
      devices: that share the bodies.
    """

    bodies: np.ndarray
    most: int
    seed: int
    batch_size: int
    repeats: int
    groups: int
    devices: int = 1

    @property
    def full(self) -> int:
        """Bodies of a group, absent ones included."""
        return self.batch_size // self.groups * self.most

    @property
    def unit(self) -> int:
        """Numbers of bodies to compute are multiples of this. Devices share whole groups, or else the bodies."""
        parts = 1 if self.groups % self.devices == 0 else self.devices
        return max(self.full // _SIZES // parts, 1) * parts

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch."""
        return steps_per_epoch(len(self.bodies), self.repeats, self.batch_size)

    def needed(self, epoch: int) -> np.ndarray:
        """The bodies to compute of a group, for each step of an epoch: int `[steps]`; of the groups, the most."""
        order = clip_order(len(self.bodies), self.repeats, self.seed, epoch)
        counts = self.bodies[order[: self.steps_per_epoch * self.batch_size]]
        needed = bodies_to_compute(counts.reshape(self.steps_per_epoch, self.groups, -1), self.most).max(axis=1)
        return -(-needed // self.unit) * self.unit


def bodies_to_compute(bodies: np.ndarray, most: int) -> np.ndarray:
    """How many bodies are computed of groups of clips with these `bodies`, int `[..., clips]`: int `[...]`.

    Those that are present, at least one of each clip, and one absent body for each number from 1 to `most` - 1.
    """
    return np.clip(bodies, 1, most).sum(axis=-1) + most - 1


class Capacities:
    """The numbers of bodies of a run's programs."""

    def __init__(self, counts: BodyCounts):
        """Chooses the numbers, see `choose_sizes`."""
        usual = dataclasses.replace(counts, seed=0)
        epochs = max(1, min(_EPOCHS, _CLIPS_COUNTED // (counts.steps_per_epoch * counts.batch_size)))
        needed = np.concatenate([usual.needed(epoch) for epoch in range(epochs)])
        needed[needed == needed.max()] += counts.unit  # other seeds may need a little more
        self.sizes = choose_sizes(needed, counts.full, _SHORT_RUN * counts.steps_per_epoch)
        self._counts = counts
        self._needed = functools.lru_cache(2)(counts.needed)

    def at(self, step: int, count: int = 1) -> int | None:
        """The number of bodies that the program of the `count` steps from `step` on computes; None: all."""
        steps = (divmod(number, self._counts.steps_per_epoch) for number in range(step, step + count))
        needed = max(int(self._needed(epoch)[place]) for epoch, place in steps)
        return next((size for size in self.sizes if size >= needed), None)


def choose_sizes(needed: np.ndarray, full: int, steps: int) -> tuple[int, ...]:
    """The numbers of bodies for which programs are compiled, ascending; empty: all bodies are always computed.

    Args:
      needed: bodies to compute of each of many batches, int `[batches]`.
      full: of a batch, absent bodies included.
      steps: of a short run.

    Returns:
      Those with the least work, the additional programs' compilation included, of which the largest suffices for all
      of these batches. `full`, which may be among the best, is left out: that is the plain program.
    """
    values, batches = np.unique(np.minimum(needed, full), return_counts=True)
    share = batches / (full * batches.sum())
    best, least = (), _WORTHWHILE
    for programs in range(1, _MOST_PROGRAMS + 1):
        for smaller in itertools.combinations(values[:-1].tolist(), programs - 1):
            sizes = np.array([*smaller, values[-1]])
            work = float((sizes[np.searchsorted(sizes, values)] * share).sum())
            work += (programs - 1) * _STEPS_TO_COMPILE / steps
            if work < least:
                best, least = tuple(int(size) for size in sizes if size < full), work
    return best
