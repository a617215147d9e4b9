"""Shows one run, or several side by side, on a web page: `python -m experiments.report`."""
