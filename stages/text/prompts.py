"""Text by hand: from the command line, standard input or a file."""

import sys
from pathlib import Path

from stages.common.errors import StageError


def read_prompt(text: str | None, file: Path | None) -> str | None:
    """Read the prompt that a command line names.

    Args:
        text: the prompt itself; - for standard input.
        file: a UTF-8 file.

    Returns:
        The prompt without the newline at its end, or None where there is neither.

    Raises:
        StageError: the file or standard input is not UTF-8 text.
    """
    return text if file is None and text != "-" else read_by_hand(file).removesuffix("\n")


def read_by_hand(file: Path | None) -> str:
    """Read a UTF-8 file with any line ends, or standard input where there is none.

    Args:
        file: the file; None for standard input.

    Returns:
        The text.

    Raises:
        StageError: it is not UTF-8 text.
    """
    try:
        content = sys.stdin.buffer.read() if file is None else file.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StageError(f"{file or 'standard input'} is not UTF-8 text (byte {error.start})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as a text file is read
