"""Runs, compares and shows what the library does."""
