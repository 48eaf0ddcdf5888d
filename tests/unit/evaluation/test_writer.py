"""What the page is given so that the model writes in it."""

import base64
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
    "embedding": 2,
}


def writer(params, weights, epochs=(3,), **changes):
    checked = params(**{f"report__{name}": value for name, value in changes.items()})
    return make_writer(checked.report, checked.sample, TEXT, epochs, lambda epoch: (OPTIONS, [weights]))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_weights_are_one_array_after_the_other(dtype):
    arrays = [np.array([[1.5, -2], [0.1, 6e-8]], np.float32), np.array([7], np.float32)]
    content = base64.b64decode(encode_weights(arrays, dtype))
    decoded = np.frombuffer(content, {"float16": "<f2", "float32": "<f4"}[dtype])
    np.testing.assert_array_equal(decoded, np.array([1.5, -2, 0.1, 6e-8, 7], dtype))


def test_the_epochs_are_none_the_kept_one_or_all(params):
    for weights, expected in {"none": [], "final": [2], "all": [0, 1, 2, 3, 4]}.items():
        assert epochs_that_write(params(report__weights=weights).report, 2, 5) == expected
    assert "report.weights is none" in writer(params, np.ones(3), epochs=()).why_not


def test_the_settings_say_how_the_model_reads(params):
    made = writer(params, np.ones(3, np.float32))
    assert list(made.weights) == made.settings["epochs"] == [3]
    assert (made.settings["cell"], made.settings["layers"], made.settings["embedding"]) == ("gru", 2, 2)
    assert (made.settings["prompt"], made.settings["maxlen"], made.length) == ("ab\nb", 4, 400)
    assert made.settings["purpose"] == zlib.crc32(b"generate by hand")
    assert (made.settings["carried"], made.settings["dtype"], made.why_not) == (False, "float32", "")
    checked = params(sample__prompt="BA", sample__length=20_000)
    carried = TEXT.model_copy(update={"carried": True})
    other = make_writer(checked.report, checked.sample, carried, [0], lambda _: (OPTIONS, [np.ones(1)]))
    assert (other.settings["prompt"], other.settings["carried"], other.length) == ("ba", True, MAX_LENGTH)


def test_above_the_limit_it_is_said_why(params):
    weights = np.ones(3000, np.float32)  # 16,000 characters of base64, 8,000 in float16
    assert writer(params, weights, weights_limit=0.016).why_not == ""
    assert writer(params, weights, epochs=(0, 1), weights_limit=0.031).why_not == (
        "The model cannot write in this page: its weights would take 0.032 MB, and "
        "report.weights_limit is 0.031."
    )
    assert writer(params, weights, weights_limit=0.008, weights_dtype="float16").why_not == ""


@pytest.mark.parametrize(
    ("value", "fits"), [(65504, "float16"), (65600, "float32"), (np.nan, ""), (np.inf, "")]
)
def test_weights_that_the_type_does_not_hold_are_not_embedded(params, value, fits):
    for dtype in ("float16", "float32"):
        made = writer(params, np.array([0, value], np.float32), weights_dtype=dtype)
        said = f"go up to {value:g} in epoch 3, too much for {dtype} (report.weights_dtype)."
        held = fits == "float16" or fits == dtype
        assert bool(made.weights) == held
        assert made.why_not.endswith("" if held else said)


def test_only_the_pages_own_scripts_have_hashes():
    others = '<script type="text/plain">c</script><script type="application/json">1</script>'
    page = f'<script type="module">a\nb</script>{others}<script type="module"></script>'
    assert hashes_of_scripts(page) == [  # by openssl dgst -sha256 -binary | base64
        "'sha256-fhj3NzEbLcOy8mndeDlrA1HxT7Zu+oefdoyyMYGIPHg='",
        "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",
    ]
