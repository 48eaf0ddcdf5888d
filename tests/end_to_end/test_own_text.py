"""A text file of the user's own, as the download stage reads it."""

import json
import subprocess
import sys

import pytest
import yaml

from tests.end_to_end.download_support import SHA256, TEXT, fails


def test_a_file_of_ones_own(download):
    (download.root / "corpora/my book.txt").write_bytes(TEXT)
    done = download(corpus="corpora/my book.txt")
    assert done.returncode == 0, done
    assert download.corpus.read_bytes() == TEXT

    tree = yaml.safe_load((download.root / "params.yaml").read_text())
    tree["download"]["sha256"] = "0" * 64
    (download.root / "params.yaml").write_text(yaml.safe_dump(tree))
    done = subprocess.run(
        [sys.executable, "-m", "stages.download"], cwd=download.root, capture_output=True, text=True
    )
    fails(done, f"has sha256 {SHA256}; download.sha256 expects {'0' * 64}")
    assert download.corpus.read_bytes() == TEXT
    fails(
        download(corpus="corpora/my book.txt", max_bytes=49_999),
        "corpora/my book.txt has more than 49,999 bytes; download.max_bytes takes no more",
    )


def test_a_packed_file_of_ones_own(download):
    packed = download.root / "corpora/book.txt.gz"
    packed.write_bytes(subprocess.run(["gzip", "-c"], input=TEXT, capture_output=True).stdout)
    assert download(corpus="corpora/book.txt.gz").returncode == 0
    assert download.corpus.read_bytes() == TEXT
    assert json.loads((download.root / "metrics/corpus.json").read_text()) == {"corpus": "book.txt.gz"}

    assert packed.stat().st_size < 49_999
    fails(
        download(corpus="corpora/book.txt.gz", max_bytes=49_999),
        "corpora/book.txt.gz has more than 49,999 bytes unpacked; download.max_bytes takes no more",
    )
    content = packed.read_bytes()
    for damaged in (content[:-9], content[:100] + bytes(100) + content[200:]):
        packed.write_bytes(damaged)
        fails(download(corpus="corpora/book.txt.gz"), "corpora/book.txt.gz is not a complete gzip file: ")
    assert download.corpus.read_bytes() == TEXT


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-be", "utf-8-sig"])
def test_a_file_of_ones_own_in_another_encoding(download, encoding):
    text = "Übermensch – für jedermann\n"
    if encoding == "latin-1":
        text = text.replace("–", "-")
    (download.root / "corpora/zarathustra.txt").write_bytes(text.encode(encoding))
    done = download(corpus="corpora/zarathustra.txt", encoding=encoding)
    assert done.returncode == 0, done
    assert download.corpus.read_bytes() == text.encode("utf-8")


def test_an_encoding_that_is_not_the_files_is_named(download):
    (download.root / "corpora/book.txt").write_bytes(b"f\xff")
    said = fails(
        download(corpus="corpora/book.txt", encoding="gb18030"),
        "corpora/book.txt is not text in download.enc",
    )
    assert "encoding gb18030: 'gb18030' codec can't decode byte 0xff in position 1" in said
    fails(
        download(corpus="corpora/book.txt", encoding="rot13"),
        "download.encoding: got 'rot13'; takes the name",
    )
    fails(
        download(corpus="corpora/book.txt", encoding="nosuch"), "download.encoding: got 'nosuch'; takes the"
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a folder", "download.corpus: got 'corpora/book.txt', and this is a folder; takes a text or a d"),
        (b"", "is empty; it takes a text longer than one window"),
        ("für".encode("latin-1"), "is not UTF-8 text: byte 1 is 0xfc; name its encoding in download.enc"),
        (
            None,
            "download.corpus: got 'corpora/book.txt', and there is no such file; takes a text or a "
            "description in corpora/; there are corpora/book.yaml, corpora/other.yaml",
        ),
    ],
)
def test_a_text_that_will_not_do_is_named(download, content, says):
    book = download.root / "corpora/book.txt"
    if content == "a folder":
        book.mkdir()
    elif content is not None:
        book.write_bytes(content)
    fails(download(corpus="corpora/book.txt"), says)
    assert not download.corpus.exists()


def test_a_long_name_is_cut_in_the_metrics(download):
    """So that `dvc metrics show` fits into 100 columns."""
    name = "a_text_with_a_very_long_name.txt"
    (download.root / "corpora" / name).write_bytes(TEXT)
    assert download(corpus=f"corpora/{name}").returncode == 0
    assert json.loads((download.root / "metrics/corpus.json").read_text()) == {"corpus": f"{name[:19]}…"}
