"""Pose files of other programs become `Poses`: each is recognized by what it is, or named by options."""

from mmcl_jax.poses.files.reading import SUFFIXES, find_pose_files, is_folder_of_frames, read_clips, read_poses

__all__ = ["SUFFIXES", "find_pose_files", "is_folder_of_frames", "read_clips", "read_poses"]
