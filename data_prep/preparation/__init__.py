"""Shared by the commands that prepare datasets: their arguments, and the steps for a dataset with RGB videos."""
