"""Shared by the web pages about records and about runs: a self-contained page, and a skeleton player."""
