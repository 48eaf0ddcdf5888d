"""The file that says how a model reads text."""

import json

import numpy as np
import pytest

from stages.common.errors import StageError
from stages.text.vocabulary_file import model_text, read_model_text, write_model_text
from stages.text.windows import make_windows

TEXT = "ABBA\nabab\x00é\u2028a" * 4


@pytest.fixture
def text(params):
    settings = params(vectorize__maxlen=5).vectorize
    return model_text(make_windows(TEXT.lower().replace("\n", " "), settings), settings, False)


def test_it_reads_prompts_as_the_text_was_read(text, tmp_path):
    write_model_text(tmp_path, text)
    back = read_model_text(tmp_path)
    assert back == text
    assert back.vocabulary == "\x00 abé\u2028"
    assert (back.first_window, back.maxlen) == ("abba ", 5)
    np.testing.assert_array_equal(back.encode(None, "prompt"), [2, 3, 3, 2, 1])
    np.testing.assert_array_equal(back.encode("BA\n", "prompt"), [3, 2, 1])
    np.testing.assert_array_equal(back.encode("ééééaaaaab", "prompt"), [2, 2, 2, 2, 3])
    with pytest.raises(StageError, match=r"the prompt: character 'c' at position 1 is not in the vocabulary"):
        back.encode("ac", "the prompt")


def test_case_and_newlines_are_kept_where_the_parameters_say_so(params):
    settings = params(
        vectorize__maxlen=5, vectorize__lowercase=False, vectorize__newlines_to_spaces=False
    ).vectorize
    text = model_text(make_windows(TEXT, settings), settings, False)
    assert text.first_window == "ABBA\n"
    np.testing.assert_array_equal(text.encode("A\n", "prompt"), [2, 1])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is missing; a model's folder has model.keras and vocabulary.json"),
        ('{"vocab', "is damaged ("),
        ("[]", "takes the keys vocabulary, lowercase, newlines_to_spaces, first_window"),
        ('{"vocabulary": "ab"}', "lowercase: is missing; takes true or false (and 2 more mistakes)"),
    ],
)
def test_a_file_that_will_not_do_is_named(tmp_path, content, says):
    if content is not None:
        (tmp_path / "vocabulary.json").write_text(content)
    with pytest.raises(StageError) as error:
        read_model_text(tmp_path)
    assert str(tmp_path / "vocabulary.json") in str(error.value)
    assert says in str(error.value)


def test_it_is_ascii(text, tmp_path):
    write_model_text(tmp_path, text)
    assert (tmp_path / "vocabulary.json").read_bytes().isascii()
    assert json.loads((tmp_path / "vocabulary.json").read_text())["vocabulary"] == text.vocabulary
