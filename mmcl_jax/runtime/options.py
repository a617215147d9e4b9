"""Types of command-line options, for argparse."""

import argparse


def positive(text: str) -> int:
    """A positive whole number. Raises: ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal()) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def model_width(text: str) -> int:
    """`base_channels` of a backbone: a positive multiple of 4. Raises: ArgumentTypeError."""
    if positive(text) % 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not a multiple of 4")
    return int(text)
