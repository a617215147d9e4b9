"""One page about a run, or about several beside each other: `python -m experiments.report`."""
