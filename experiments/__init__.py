"""Runs experiments with the library, compares their results, and shows them."""
