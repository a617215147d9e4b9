"""Objects whose pickles call something, which no reader may let happen."""

import os
import random

import numpy as np

from tests.fuzz.mutations.kinds import CANARY, pick


class Payload:
    """A pickle of it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def payload(rng: np.random.Generator) -> Payload:
    """One of several; those that run code leave a trace of the canary."""
    import importlib

    return pick(
        rng,
        (
            Payload(importlib.import_module, CANARY),
            Payload(os.system, f"touch {CANARY}"),
            Payload(exec, f"import {CANARY}"),
            Payload(eval, f"__import__({CANARY!r})"),
            Payload(getattr, "x", "upper"),
            Payload(np.zeros, 10),
            Payload(random.Random),
        ),
    )
