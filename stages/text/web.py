"""A corpus from an internet address, within limits of time and size."""

import threading
import time

from stages.common.params import Download
from stages.text.corpora import HashMismatch, SourceUnavailable

# A body that arrives slower than this once the time is over counts as no answer, bytes per second.
SLOWEST = 10_000


class _Body:
    """The body of one address. A download that is given up goes on in its own object and changes nothing."""

    def __init__(self, url: str, settings: Download) -> None:
        self.url = url
        self.settings = settings
        self.pieces: list[bytes] = []
        self.received = 0
        self.began = time.monotonic()
        self.error: Exception | None = None
        self.given_up = threading.Event()

    def download(self) -> None:
        """Fill `pieces`, or set `error`."""
        import requests

        for attempt in range(self.settings.retries + 1):
            try:
                self._try_once()
            except requests.exceptions.RequestException as error:
                self.error = SourceUnavailable(f"{self.url} {_cause(error)}")
                if attempt < self.settings.retries and not self.given_up.wait(attempt + 1):
                    continue
            except Exception as error:  # raised in the waiting thread
                self.error = error
            else:
                self.error = None
            return

    def _try_once(self) -> None:
        import requests
        from tqdm import tqdm

        self.pieces, self.received = [], 0
        with requests.get(self.url, stream=True, timeout=self.settings.timeout) as answer:
            answer.raise_for_status()
            self.began = time.monotonic()
            size = answer.raw.length_remaining
            with tqdm(None, "download", size, leave=False, unit="B", unit_scale=True, disable=None) as bar:
                for piece in answer.iter_content(8192):
                    self.pieces.append(piece)
                    self.received += len(piece)
                    bar.update(len(piece))
                    check_size(self.url, self.received, self.settings.max_bytes)
                    if self.given_up.is_set():
                        return

    def is_fast_enough(self) -> bool:
        """Tell whether the body is arriving at a useful speed."""
        return self.received > 0 and self.received >= SLOWEST * (time.monotonic() - self.began)


def check_size(source: str, size: int, max_bytes: int) -> None:
    """Raise HashMismatch if a source serves more than `download.max_bytes`."""
    if size > max_bytes:
        raise HashMismatch(f"{source} served more than download.max_bytes = {max_bytes} bytes")


def download_url(url: str, settings: Download, seconds: float) -> bytes:
    """Download one address, in a thread that is given up when its time is over.

    The timeouts of requests bound neither the look-up of a name nor a body that trickles in.

    Args:
        url: the address.
        settings: time-out, retries and size limit.
        seconds: when to give up. A body that arrives fast enough may take longer.

    Returns:
        The body.

    Raises:
        SourceUnavailable: no answer, an HTTP error, or the time is over.
        HashMismatch: the body is larger than `download.max_bytes`.
    """
    deadline = time.monotonic() + seconds
    body = _Body(url, settings)
    thread = threading.Thread(target=body.download, daemon=True)
    thread.start()
    while thread.is_alive() and (time.monotonic() < deadline or body.is_fast_enough()):
        thread.join(0.1)
    if thread.is_alive():
        body.given_up.set()
        raise SourceUnavailable(
            f"{url} did not answer within {seconds:.3g} s, its share of "
            f"download.deadline = {settings.deadline:g} s"
        )
    if body.error:
        raise body.error
    return b"".join(body.pieces)


def _cause(error: Exception) -> str:
    """Describe an exception of requests in a few words."""
    if (answer := getattr(error, "response", None)) is not None:
        return f"answered {answer.status_code} {answer.reason}"
    text = str(error)
    for phrase, cause in (
        ("timed out", "timed out"),
        ("refused", "connection refused"),
        ("resolve", "its name does not resolve"),
        ("Name or service not known", "its name does not resolve"),
        ("IncompleteRead", "the connection broke off in the middle"),
    ):
        if phrase in text:
            return f"did not answer: {cause}"
    return f"did not answer: {type(error).__name__}: {text}"
