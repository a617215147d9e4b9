"""Skeleton layouts: joint names and bones, and rules that compute the joints of one layout from another's."""

from mmcl_jax.data.layouts.known import LAYOUTS
from mmcl_jax.data.layouts.layout import Layout, LayoutError
from mmcl_jax.data.layouts.mapping import joint_mapping, map_joints

__all__ = ["LAYOUTS", "Layout", "LayoutError", "joint_mapping", "map_joints"]
