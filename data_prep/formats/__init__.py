"""Reads source files: archives, file formats, clip names, lists of clips."""
