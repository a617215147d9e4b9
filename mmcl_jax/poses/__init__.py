"""Poses of people in videos and files: one type for tracked poses, estimators that make them, readers, cleaning."""
