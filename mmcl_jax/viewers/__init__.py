"""Shared by the web pages of records and of runs: a self-contained page and a skeleton player."""
