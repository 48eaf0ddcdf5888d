"""Windows against the article's way: loops over characters, written here."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stages.common.errors import StageError
from stages.text import normalization, vocabulary
from stages.text.normalization import read_text, split_starts
from stages.text.vocabulary import encode
from stages.text.windows import cut, make_windows, one_hot
from stages.text.windows_file import load_windows, save_windows
from tests.support import ROOT, make_text


def naive_windows(text, maxlen, step, vocabulary):
    """The article's loops: one-hot x and y, window by window, character by character."""
    starts = range(0, len(text) - maxlen, step)
    x = np.zeros((len(starts), maxlen, len(vocabulary)), dtype=bool)
    y = np.zeros((len(starts), len(vocabulary)), dtype=bool)
    for i, start in enumerate(starts):
        for t in range(maxlen):
            x[i, t, vocabulary.index(text[start + t])] = True
        y[i, vocabulary.index(text[start + maxlen])] = True
    return x, y


def saved(windows, as_one_hot, path):
    with open(path, "wb") as file:
        save_windows(file, windows, as_one_hot)
    return path


@pytest.mark.parametrize(
    ("length", "maxlen", "step"),
    [(300, 40, 3), (299, 40, 3), (298, 40, 3), (41, 40, 3), (50, 1, 1), (60, 7, 100), (57, 5, 5)],
)
@pytest.mark.parametrize("as_one_hot", [False, True])
def test_windows_are_the_articles(params, tmp_path, length, maxlen, step, as_one_hot):
    text = make_text(length).lower().replace("\n", " ")
    vocabulary = "".join(sorted(set(text)))
    expected_x, expected_y = naive_windows(text, maxlen, step, vocabulary)
    settings = params(vectorize__maxlen=maxlen, vectorize__step=step).vectorize
    path = saved(make_windows(text, settings), as_one_hot, tmp_path / "windows.npz")

    with np.load(path, allow_pickle=False) as file:
        assert list(file["vocabulary"]) == list(vocabulary)
        assert set(file.files) == {"x", "y", "vocabulary"}
        x, y = file["x"], file["y"]
    if as_one_hot:
        assert x.dtype == y.dtype == bool
        np.testing.assert_array_equal(x, expected_x)
        np.testing.assert_array_equal(y, expected_y)
    else:
        assert x.dtype == y.dtype == np.uint8
        np.testing.assert_array_equal(np.eye(len(vocabulary), dtype=bool)[x], expected_x)
        np.testing.assert_array_equal(np.eye(len(vocabulary), dtype=bool)[y], expected_y)
    loaded = load_windows(path)
    np.testing.assert_array_equal(loaded.x, expected_x.argmax(-1))
    np.testing.assert_array_equal(loaded.y, expected_y.argmax(-1))


def test_one_hot_is_the_identitys_rows():
    indices = np.array([[0, 2], [1, 1]], np.uint8)
    np.testing.assert_array_equal(one_hot(indices, 3), np.eye(3, dtype=bool)[indices])


@pytest.mark.parametrize("as_one_hot", [False, True])
@pytest.mark.parametrize(
    ("shares", "starts"), [((0.1, 0), (900, 1000)), ((0.1, 0.2), (700, 800)), ((0, 0.2), (800, 800))]
)
def test_no_window_crosses_into_another_part(params, tmp_path, shares, starts, as_one_hot):
    """Each part has the article's windows of its own text; only the vocabulary is that of the whole text."""
    text = make_text(999).lower().replace("\n", " ") + "€"
    settings = params(
        vectorize__validation=shares[0],
        vectorize__test=shares[1],
        vectorize__maxlen=10,
        vectorize__step=4,
        vectorize__validation_step=3,
    ).vectorize
    path = saved(make_windows(text, settings), as_one_hot, tmp_path / "w.npz")
    windows = load_windows(path)
    vocabulary = "".join(sorted(set(text)))
    assert windows.vocabulary == vocabulary
    validation, test = starts
    for part, step, x, y in (
        (text[:validation], 4, windows.x, windows.y),
        (text[validation:test], 3, windows.x_val, windows.y_val),
        (text[test:], 3, windows.x_test, windows.y_test),
    ):
        expected_x, expected_y = naive_windows(part, 10, step, vocabulary)
        np.testing.assert_array_equal(x, expected_x.argmax(-1))
        np.testing.assert_array_equal(y, expected_y.argmax(-1))
    with np.load(path) as file:
        splits = [name for name, share in zip(("val", "test"), shares, strict=True) if share]
        assert set(file.files) == {"x", "y", "vocabulary", *(f"{a}_{s}" for s in splits for a in "xy")}


@pytest.mark.parametrize(("size", "dtype"), [(2, "u1"), (256, "u1"), (257, "u2"), (70_000, "u4")])
def test_the_vocabulary_takes_the_smallest_type(params, tmp_path, size, dtype):
    characters = [chr(code) for code in range(0x80000) if not 0xD800 <= code < 0xE000][:size]
    text = "".join(characters[::-1]) * 2
    windows = make_windows(text, params(vectorize__maxlen=3, vectorize__step=1).vectorize)
    assert windows.x.dtype == np.dtype(dtype)
    loaded = load_windows(saved(windows, False, tmp_path / "w.npz"))
    assert loaded.vocabulary == "".join(characters)  # the character NUL included
    assert "".join(loaded.vocabulary[i] for i in loaded.x[-1]) == text[-4:-1]


def test_equal_windows_give_equal_bytes(params):
    windows = make_windows(make_text(500), params(vectorize__validation=0.2).vectorize)
    first, second = io.BytesIO(), io.BytesIO()
    save_windows(first, windows, False)
    save_windows(second, windows, False)
    assert first.getvalue() == second.getvalue()
    with zipfile.ZipFile(first) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_text_is_read_as_the_article_reads_it(params, tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes("\ufeffAb\r\nÇdß\n".encode())
    assert read_text(path, params().vectorize) == "ab çdß "  # `casefold` would make it "ss"
    as_it_is = params(vectorize__lowercase=False, vectorize__newlines_to_spaces=False)
    assert read_text(path, as_it_is.vectorize) == "Ab\nÇdß\n"


@pytest.mark.parametrize(
    ("length", "share", "validation"),
    [
        (1007, 0.1, 101),
        (1004, 0.1, 100),
        (1000, 0.1, 100),
        (10, 0.29, 3),
        (9, 0.5, 4),
        (11, 0.5, 6),
        (9, 0, 0),
    ],
)
def test_a_split_is_the_nearest_whole_number_of_characters(params, length, share, validation):
    """Halves to the even number, as Python rounds."""
    of_validation = params(vectorize__validation=share).vectorize
    assert split_starts(length, of_validation) == (length - validation, length)
    of_test = params(vectorize__test=share).vectorize
    assert split_starts(length, of_test) == (length - validation, length - validation)


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_pieces_join_to_the_text_that_python_reads(params, tmp_path, monkeypatch, piece):
    """The lower case of a sigma depends on its neighbours; line ends and characters have several bytes."""
    monkeypatch.setattr(normalization, "PIECE", piece)
    monkeypatch.setattr(vocabulary, "PIECE", piece)
    content = "\ufeffΟΔΟΣ ΟΔΟΣ\r\nΣ'Α Σ\rΑΣ'\n\nİΣ 日本語" + "ΣΑ" * 9
    path = tmp_path / "corpus.txt"
    path.write_bytes(content.encode())
    expected = content[1:].replace("\r\n", "\n").replace("\r", "\n").lower().replace("\n", " ")
    assert {"σ", "ς"} < set(expected)
    pieces = list(normalization.read_pieces(path, params().vectorize))
    assert len(pieces) > 5 or piece > 3
    assert "".join(pieces) == expected
    indices, characters = encode(expected)
    assert "".join(characters[index] for index in indices) == expected
    assert characters == "".join(sorted(set(expected)))


def test_encode_and_cut_of_short_texts():
    indices, vocabulary = encode("abc")
    assert (list(indices), vocabulary) == ([0, 1, 2], "abc")
    for maxlen, count in ((2, 1), (3, 0), (4, 0)):
        x, y = cut(indices, maxlen, 1)
        assert (len(x), len(y), x.shape[1]) == (count, count, maxlen)


@pytest.mark.parametrize(("text", "part"), [("", "the text"), ("a" * 40, "the text")])
def test_a_text_shorter_than_a_window_is_named(params, text, part):
    with pytest.raises(StageError, match=rf"{part} has {len(text)} characters; .* = 41 at least"):
        make_windows(text, params().vectorize)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_split_shorter_than_a_window_is_named(params, name):
    with pytest.raises(StageError, match=f"the {name} split has 20 characters"):
        make_windows("ab" * 100, params(**{f"vectorize__{name}": 0.1}).vectorize)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def compressed(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def good():
    return {"x": np.zeros((3, 4), "u1"), "y": np.zeros(3, "u1"), "vocabulary": np.array(["a", "b"])}


MAPPED = """
import re, sys
from pathlib import Path
import numpy as np
from stages.text.windows_file import load_windows

def own_megabytes():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", status)[1]) / 1024

before = own_megabytes()
windows = load_windows(Path(sys.argv[1]))
picked = np.random.default_rng(0).integers(0, len(windows.x), 10_000)
assert windows.x[picked].sum() == (picked == 0).sum()
print(own_megabytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_windows_are_not_copied_into_memory(tmp_path):
    """120 MB of windows, read whole once for their checksums and then at random: no second copy."""
    x = np.zeros((3_000_000, 40), "u1")
    x[0, 0] = 1
    path = tmp_path / "windows.npz"
    np.savez(path, x=x, y=x[:, 0], vocabulary=np.array(["a", "b"]))
    done = subprocess.run(
        [sys.executable, "-c", MAPPED, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 12


FOREIGN = {
    "text": b"not a zip",
    "empty": b"",
    "cut short": npz(**good())[:-40],
    "flipped": npz(**good()).replace(b"\0" * 12, b"\0" * 11 + b"\1"),
    "npy": b"\x93NUMPY" + b"\0" * 50,
    "compressed": compressed(**good()),
    "no x": npz(y=np.zeros(3, "u1"), vocabulary=np.array(["a"])),
    "pickle": npz(**good() | {"x": np.array([{}], dtype=object)}),
    "signed": npz(**good() | {"x": np.zeros((3, 4), "i8")}),
    "float": npz(**good() | {"x": np.zeros((3, 4))}),
    "other lengths": npz(**good() | {"y": np.zeros(2, "u1")}),
    "no windows": npz(**good() | {"x": np.zeros((0, 4), "u1"), "y": np.zeros(0, "u1")}),
    "index": npz(**good() | {"y": np.array([0, 1, 2], "u1")}),
    "vocabulary": npz(**good() | {"vocabulary": np.array(["ab", "c"])}),
    "test index": npz(**good(), x_test=np.full((1, 4), 2, "u1"), y_test=np.zeros(1, "u1")),
    "test lengths": npz(**good(), x_test=np.zeros((1, 3), "u1"), y_test=np.zeros(1, "u1")),
    "flat one-hot": npz(**good() | {"x": np.zeros((3, 4), bool)}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_damaged_or_foreign_file_is_named(tmp_path, name):
    path = tmp_path / "windows.npz"
    path.write_bytes(FOREIGN[name])
    with pytest.raises(StageError) as caught:
        load_windows(path)
    assert str(caught.value).startswith(str(path))
    assert "`dvc repro vectorize`" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StageError, match="is missing; `dvc repro vectorize` creates it"):
        load_windows(tmp_path / "windows.npz")
