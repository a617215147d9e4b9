"""What a mutation is, and what all kinds of them need."""

import dataclasses
from collections.abc import Callable

import numpy as np

CANARY = "fuzz_canary"  # a module whose import, or a command of whose name, shows that code ran


@dataclasses.dataclass(frozen=True)
class Mutation:
    """What is known about a mutation.

    Attributes:
      apply: takes generator and contents (of a file), or generator and tree.
      format: of the files that it applies to; '': every file; 'tree': a whole tree.
      removes: whether clips may be missing afterwards though nothing is wrong with what is left.
    """

    apply: Callable
    format: str
    removes: bool = False


def into(mutations: dict[str, Mutation]) -> Callable:
    """Returns a decorator of a format and of `Mutation.removes`; it adds functions to `mutations` by their names."""

    def mutation(format: str, removes: bool = False):
        def register(function):
            mutations[function.__name__] = Mutation(function, format, removes)
            return function

        return register

    return mutation


def pick(rng: np.random.Generator, choices):
    """One of the choices."""
    return choices[int(rng.integers(len(choices)))]
