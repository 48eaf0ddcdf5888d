"""A connection between the coordinator and a worker: one line of JSON per message."""

import contextlib
import json
import queue
import socket
import sys
import threading
import time
from typing import Any

from stages.distributed.cluster import Cluster, split_address

NO_WAITING = getattr(socket, "MSG_DONTWAIT", 0)


class Connection:
    """One end of the connection between the coordinator and a worker.

    Attributes:
        name: the process at the other end, for messages.
        last_heard: when the last message came, in seconds of `time.monotonic`.
        steps_begun: optimizer steps that the other process has begun.
        error: what it reported as wrong, or an empty text.
        closed: whether the connection is lost or closed.
        ended: whether the other process announced that it ends.
    """

    def __init__(self, connection: socket.socket, name: str) -> None:
        """Start reading messages in a thread.

        Args:
            connection: a connected socket.
            name: the process at the other end.
        """
        self.name = name
        self.last_heard = time.monotonic()
        self.steps_begun = 0
        self.error = ""
        self.closed = self.ended = False
        self._connection = connection
        self._connection.settimeout(None)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._sending = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Sort heartbeats, errors and other messages until the connection is closed."""
        with (
            contextlib.suppress(OSError, ValueError, AttributeError),
            self._connection.makefile() as lines,
        ):
            for line in lines:
                message: dict[str, Any] = json.loads(line)
                self.steps_begun = message.get("steps_begun", self.steps_begun)
                self.error = message.get("error", self.error)
                self.ended |= "end" in message
                self.last_heard = time.monotonic()
                if not {"steps_begun", "error"} & set(message):
                    self._messages.put(message)
        self.closed = True
        self._messages.put(None)

    def send(self, **message: Any) -> None:
        """Send one message. A lost connection is noticed by the reader, not here."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def send_without_waiting(self, **message: Any) -> None:
        """Send one message, unless another one is being sent or the other side does not read."""
        if self._sending.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    self._connection.send(json.dumps(message).encode() + b"\n", NO_WAITING)
            finally:
                self._sending.release()

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Wait for the next message that is neither a heartbeat nor an error.

        Args:
            timeout: seconds to wait; None for no limit.

        Returns:
            The message; None where the connection is closed or the time is over.
        """
        try:
            return self._messages.get(timeout=timeout)
        except queue.Empty:
            return None

    def wait_closed(self, timeout: float) -> None:
        """Wait until the connection is closed, at most `timeout` seconds."""
        self._reader.join(max(0.0, timeout))

    def close(self) -> None:
        """Close this side. What was sent still arrives."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)


def connect(cluster: Cluster, local: bool) -> socket.socket:
    """Connect to the coordinator as soon as it listens.

    Args:
        cluster: the processes that train together.
        local: whether the coordinator is the parent process. Then it listens from the start, and this
            process ends if it does not.

    Returns:
        The connected socket.
    """
    address = split_address(cluster.addresses[0])
    reported = False
    while True:
        try:
            return socket.create_connection(address, timeout=5)
        except OSError as error:
            if local:
                sys.exit(1)
            if not reported:
                print(f"waiting for {cluster.name(0)}: {error.strerror or error}", flush=True)
            reported = True
            time.sleep(0.5)
