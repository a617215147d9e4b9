"""Prepares records from raw data, computes text features, and shows records: one command per module."""

from mmcl_jax.runtime.interrupts import quiet_start

quiet_start()
