"""Command lines whose mistakes are reported in one line, as everywhere in this project."""

import argparse
from pathlib import Path
from typing import NoReturn

from stages.common.errors import fail
from stages.common.paths import MODELS_DIR


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line with exit code 1."""

    def error(self, message: str) -> NoReturn:
        """Report a mistake, without the usage."""
        fail(f"{message} (see --help)")


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add `--model DIR`, the folder of the model that a command uses."""
    about = "folder of model.keras and vocabulary.json (%(default)s)"
    parser.add_argument("--model", type=Path, default=MODELS_DIR, metavar="DIR", help=about)


def whole_number(low: int, high: int):
    """Create an argparse type for a whole number in a range.

    Args:
        low: the smallest number.
        high: the largest number.

    Returns:
        A function that parses a text.
    """

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"got {text!r}; takes a whole number from {low:,} to {high:,}")
        return int(text)

    return parse


def number(low: float, high: float):
    """Create an argparse type for a number in a range.

    Args:
        low: the smallest number.
        high: the largest number.

    Returns:
        A function that parses a text.
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"got {text!r}; takes a number from {low:g} to {high:g}")
        return value

    return parse
