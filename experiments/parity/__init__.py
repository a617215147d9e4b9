"""Compares our models with PyTorch's: `python -m experiments.parity`. `__main__` describes the rules."""
