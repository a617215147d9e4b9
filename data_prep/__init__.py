"""Prepares records from raw data, computes text features, and shows records: one command per module."""
