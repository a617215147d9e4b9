"""Runs experiments with the library, compares their results, and shows them."""

from mmcl_jax.runtime.interrupts import quiet_start

quiet_start()
