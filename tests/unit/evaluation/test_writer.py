"""What the page is given so that the model writes in it."""

import base64
import struct
import zlib

import numpy as np
import pytest

from stages.evaluation.page import hashes_of_scripts
from stages.evaluation.writer import MAX_LENGTH, encode_weights, epochs_that_write, make_writer
from stages.text.vocabulary_file import ModelText

TEXT = ModelText(vocabulary="\nab", lowercase=True, newlines_to_spaces=False, first_window="ab\nb")
OPTIONS = {
    "maxlen": 4,
    "vocab_size": 3,
    "cell": "gru",
    "layers": 2,
    "units": 5,
    "dropout": 0.1,
    "embedding": None,
}


def writer(params, weights, epochs=(3,), **changes):
    checked = params(**{f"report__{name}": value for name, value in changes.items()})
    return make_writer(checked.report, checked.sample, TEXT, epochs, lambda epoch: (OPTIONS, [weights]))


def test_weights_are_one_array_after_the_other():
    arrays = [np.array([[1.5, -2], [0.1, 6e-8]], np.float32), np.array([7], np.float32)]
    decoded = np.frombuffer(base64.b64decode(encode_weights(arrays, "float32")), "<f4")
    np.testing.assert_array_equal(decoded, np.array([1.5, -2, 0.1, 6e-8, 7], np.float32))


def test_whole_numbers_times_the_factor_of_their_column():
    arrays = [np.array([[32.767, 0, -1], [0.0014, 0, 0.25], [-0.0016, 0, 0.5]], np.float32)]
    content = base64.b64decode(encode_weights([*arrays, np.array([-7], np.float32)], "int16"))
    *factors, last = struct.unpack("<3f18xf2x", content)
    assert [*factors, last] == pytest.approx([0.001, 0, 1 / 32767, 7 / 32767])
    numbers = [32767, 0, -32767, 1, 0, 8192, -2, 0, 16384, -32767]
    assert [*struct.unpack("<12x9h4xh", content)] == numbers


def test_the_epochs_are_none_the_kept_one_or_all(params):
    for weights, expected in {"none": [], "final": [2], "all": [0, 1, 2, 3, 4]}.items():
        assert epochs_that_write(params(report__weights=weights).report, 2, 5) == expected
    assert "report.weights is none" in writer(params, np.ones(3), epochs=()).why_not


def test_the_settings_say_how_the_model_reads(params):
    made = writer(params, np.ones(3, np.float32))
    assert list(made.weights) == made.settings["epochs"] == [3]
    assert (made.settings["cell"], made.settings["layers"], made.settings["embedding"]) == ("gru", 2, None)
    assert (made.settings["prompt"], made.settings["maxlen"], made.length) == ("ab\nb", 4, 400)
    assert made.settings["purpose"] == zlib.crc32(b"generate by hand")
    assert (made.settings["carried"], made.settings["dtype"], made.why_not) == (False, "float32", "")
    checked = params(sample__prompt="BA", sample__length=20_000)
    carried = TEXT.model_copy(update={"carried": True})
    other = make_writer(checked.report, checked.sample, carried, [0], lambda _: (OPTIONS, [np.ones(1)]))
    assert (other.settings["prompt"], other.settings["carried"], other.length) == ("ba", True, MAX_LENGTH)


def test_above_the_limit_it_is_said_why(params):
    weights = np.ones((1500, 2), np.float32)  # 16,000 characters of base64, 8,012 in int16
    assert writer(params, weights, weights_limit=0.016).why_not == ""
    assert writer(params, weights, epochs=(0, 1), weights_limit=0.031).why_not == (
        "The model cannot write in this page: its weights would take 0.032 MB, and report.weights_limit is "
        "0.031; use a higher limit or report.weights_dtype: int16 or report.weights: final."
    )
    alone = writer(params, weights, weights_limit=0.008, weights_dtype="int16").why_not
    assert alone.endswith("report.weights_limit is 0.008; use a higher limit.")
    assert writer(params, weights, weights_limit=0.00802, weights_dtype="int16").why_not == ""


@pytest.mark.parametrize("size", [4, 5])
def test_an_embedding_that_is_larger_than_its_product_with_the_kernel_is_not_needed(params, size):
    """3 characters, a kernel of 15 columns: the product has 45 numbers, both have 72 with 4 and 90 with 5."""
    rng = np.random.default_rng(0)
    table, kernel, other = rng.normal(size=(3, size)), rng.normal(size=(size, 15)), np.ones(7)
    settings = params(report__weights="final")
    read = OPTIONS | {"embedding": size}, [each.astype(np.float32) for each in (table, kernel, other)]
    made = make_writer(settings.report, settings.sample, TEXT, [0], lambda _: read)
    assert made.settings["embedding"] is None
    numbers = np.frombuffer(base64.b64decode(made.weights[0]), "<f4")
    looked_up = [sum(table[character, n] * kernel[n] for n in range(size)) for character in range(3)]
    np.testing.assert_allclose(numbers[:45], np.ravel(looked_up), atol=1e-6)
    np.testing.assert_array_equal(numbers[45:], other)


def test_an_embedding_that_is_smaller_stays(params):
    read = OPTIONS | {"embedding": 2}, [np.ones((3, 2)), np.ones((2, 15)), np.zeros(4)]
    settings = params()
    made = make_writer(settings.report, settings.sample, TEXT, [0], lambda _: read)
    assert made.settings["embedding"] == 2
    assert len(base64.b64decode(made.weights[0])) == 4 * (6 + 30 + 4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_numbers_are_not_embedded(params, value):
    made = writer(params, np.array([0, value], np.float32))
    assert not made.weights
    assert made.why_not.endswith("in epoch 3 some weights are not finite numbers.")


def test_only_the_pages_own_scripts_have_hashes():
    others = '<script type="text/plain">c</script><script type="application/json">1</script>'
    page = f'<script type="module">a\nb</script>{others}<script type="module"></script>'
    assert hashes_of_scripts(page) == [  # by openssl dgst -sha256 -binary | base64
        "'sha256-fhj3NzEbLcOy8mndeDlrA1HxT7Zu+oefdoyyMYGIPHg='",
        "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",
    ]
