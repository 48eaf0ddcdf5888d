"""Servers on loopback for each kind of failure, and the download stage in a folder of its own."""

import hashlib
import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from tests.support import ROOT, changed_params, make_text

TEXT = make_text(50_000).encode()


SHA256 = hashlib.sha256(TEXT).hexdigest()


OTHER = make_text(50_000, seed=1).encode()


def zipped(*contents):
    """A zip of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"text{number}", content)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """An HTTP server on a free port of loopback that notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.written: list[str] = []  # what was served to its end
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """A source for each kind of failure."""

    server: Server

    def do_GET(self):
        self.server.asked.append(self.path)
        getattr(self, "serve_" + self.path.strip("/").split("/")[0].split(".")[0])()

    def body(self, content, length=None, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def serve_good(self):
        self.body(TEXT)

    def serve_wrong(self):
        self.body(OTHER)

    def serve_zip(self):
        self.body(zipped(TEXT))

    def serve_two_files(self):
        self.body(zipped(TEXT, TEXT))

    def serve_cut(self):
        self.body(zipped(TEXT)[:-30])

    def serve_flipped(self):
        packed = bytearray(zipped(TEXT))
        packed[2000] ^= 1
        self.body(bytes(packed))

    def serve_bomb(self):
        self.body(zipped(bytes(10_000_000)))

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

    def serve_late(self):
        time.sleep(1.5)
        self.body(OTHER)
        self.server.written.append("late")

    def serve_steady(self):
        """One second of the corpus's bytes, above the slowest speed that counts."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        for start in range(0, len(TEXT), 5_000):
            time.sleep(0.12)
            self.wfile.write(TEXT[start : start + 5_000])
        self.server.written.append("steady")

    def drip(self, piece, pause):
        try:
            while not self.server.closing.is_set():
                self.wfile.write(piece)
                time.sleep(pause)
        except OSError:
            pass  # the client has ended the connection

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


@pytest.fixture
def download(tmp_path):
    """Run the stage in a folder of its own; `urls` are those of the corpus `book`."""
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    (tmp_path / "corpora").mkdir()

    def run(urls=(), sdist=None, sha256=SHA256, env=(), **changes):
        book = {"sha256": sha256, "urls": list(urls)} | ({"sdist": sdist} if sdist else {})
        for name, about in ("book", book), ("other", {"sha256": hashlib.sha256(OTHER).hexdigest()}):
            (tmp_path / f"corpora/{name}.yaml").write_text(yaml.safe_dump(about), encoding="utf-8")
        settings = {
            "download__corpus": "corpora/book.yaml",
            "download__offline_corpus": None,
            "download__timeout": 0.5,
            "download__deadline": 4,
            "download__retries": 1,
            "download__max_bytes": 1_000_000,
        }
        tree = changed_params(**settings | {f"download__{k}": v for k, v in changes.items()})
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        environment = {k: v for k, v in os.environ.items() if k != "CORPUS_DIR" and "proxy" not in k.lower()}
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
