"""Are our models equal to PyTorch's? `python -m experiments.parity`; how it judges is said in `__main__`."""
