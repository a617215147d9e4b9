"""Comparing a fast form with the plain one: values, and gradients for every argument."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def assert_same(fast: Callable, plain: Callable, *arguments, tolerance: float = 1e-11) -> None:
    """Asserts, in float64, that two functions have the same results and gradients.

    Args:
      fast: a function of arrays that returns an array.
      plain: another.
      *arguments: float arrays, or tuples of them.
      tolerance: largest difference, relative and absolute.
    """
    with jax.enable_x64(True):
        arguments = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), arguments)
        expected = plain(*arguments)
        weights = np.random.default_rng(9).normal(size=expected.shape)
        everything = tuple(range(len(arguments)))

        def run(function):
            def loss(*arguments):
                result = function(*arguments)
                return jnp.sum(result * weights), result

            (_, result), gradients = jax.value_and_grad(loss, everything, has_aux=True)(*arguments)
            return result, gradients

        actual, wanted = jax.jit(lambda: run(fast))(), jax.jit(lambda: run(plain))()
    assert jax.tree.structure(actual) == jax.tree.structure(wanted)
    for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(wanted), strict=True):
        assert ours.dtype == theirs.dtype == np.float64
        assert np.abs(theirs).max() > 1e-3
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard-normal float64 numbers, other ones for every shape and seed."""
    return np.random.default_rng([seed, *shape]).normal(size=shape)
