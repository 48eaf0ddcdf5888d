"""Prompts for generation by hand."""

import io
import sys

import pytest

from stages.common.errors import StageError
from stages.text.prompts import read_prompt


def test_a_prompt_from_the_command_line_standard_input_or_a_file(tmp_path, monkeypatch):
    assert read_prompt(None, None) is None
    assert read_prompt("di ra\n", None) == "di ra\n"
    file = tmp_path / "prompt.txt"
    file.write_bytes("\ufeffdi «ra»\n\n".encode())
    assert read_prompt(None, file) == "di «ra»\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("di «ra»\n".encode()), encoding="ascii"))
    assert read_prompt("-", None) == "di «ra»"
    file.write_bytes(b"di\r\nra\rme\r\n")  # line ends as in a corpus
    assert read_prompt(None, file) == "di\nra\nme"


def test_bytes_that_are_not_utf_8_are_named(tmp_path, monkeypatch):
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"di \xff")
    with pytest.raises(StageError, match=r"prompt\.txt is not UTF-8 text \(byte 3\)"):
        read_prompt(None, file)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))
    with pytest.raises(StageError, match=r"standard input is not UTF-8 text \(byte 0\)"):
        read_prompt("-", None)
