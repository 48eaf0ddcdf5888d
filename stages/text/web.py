"""A corpus from an internet address, within limits of time and size."""

import threading
import time
from pathlib import Path

from stages.common.params import Download
from stages.text.corpora import HashMismatch, SourceUnavailable

# A body that arrives slower than this once the deadline has passed counts as no answer, bytes per second.
SLOWEST = 10_000


class _BoundedProgress:
    """A progress bar for pooch that also stops a body without end and measures its speed."""

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
            raise HashMismatch(f"{self.url} served more than download.max_bytes = {self.max_bytes} bytes")

    def is_fast_enough(self) -> bool:
        """Tell whether a body is arriving at a useful speed."""
        return self.received > 0 and self.received >= SLOWEST * (time.monotonic() - self.began)

    def reset(self) -> None:
        self.received = 0
        self.bar.reset()

    def close(self) -> None:
        self.bar.close()


def download_url(url: str, target: Path, settings: Download, deadline: float) -> Path:
    """Download one address with pooch, in a thread that is abandoned at the deadline.

    The timeouts of requests bound neither the look-up of a name nor a body that trickles in.

    Args:
        url: the address.
        target: the file to write.
        settings: time-out, retries and size limit.
        deadline: when to give up, in seconds of `time.monotonic`. A body that arrives fast enough
            may take longer.

    Returns:
        The target.

    Raises:
        SourceUnavailable: no answer, an HTTP error, or the deadline has passed.
        HashMismatch: the body is larger than `download.max_bytes`.
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
                registry={target.name: None},  # the caller checks the hash, and names it
                urls={target.name: url},
                retry_if_failed=settings.retries,  # waits 1, 2, 3 ... seconds between tries
            ).fetch(
                target.name,
                downloader=pooch.HTTPDownloader(progressbar=progress, timeout=settings.timeout),
            )
            outcome.append(None)
        except Exception as error:  # raised in the waiting thread
            outcome.append(error)

    target.unlink(missing_ok=True)
    thread = threading.Thread(target=work, daemon=True)
    if time.monotonic() < deadline:
        thread.start()
    while thread.is_alive() and (time.monotonic() < deadline or progress.is_fast_enough()):
        thread.join(0.1)
    progress.close()
    if not outcome:
        raise SourceUnavailable(f"{url} did not answer within download.deadline = {settings.deadline:g} s")
    error = outcome[0]
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        raise SourceUnavailable(f"{url} answered {error.response.status_code} {error.response.reason}")
    if isinstance(error, requests.exceptions.RequestException):
        raise SourceUnavailable(f"{url} did not answer: {_cause(error)}")
    if error is not None:
        raise error
    return target


def _cause(error: BaseException) -> str:
    """Describe the cause of an exception of requests in a few words."""
    text = str(error)
    for phrase in ("timed out", "refused", "resolve", "Name or service not known", "IncompleteRead"):
        if phrase in text:
            return {
                "resolve": "its name does not resolve",
                "Name or service not known": "its name does not resolve",
                "refused": "connection refused",
                "IncompleteRead": "the connection broke off in the middle",
            }.get(phrase, phrase)
    return f"{type(error).__name__}: {text}"
