"""The synthetic dataset: figures, their actions, and drawings of them."""
