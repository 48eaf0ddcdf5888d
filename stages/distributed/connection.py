"""A connection between the coordinator and a worker: short messages in JSON, after a challenge.

Frames and challenge are those of `multiprocessing.connection`. The key is never sent, nothing is pickled.
"""

import contextlib
import json
import queue
import select
import socket
import threading
import time
from multiprocessing import connection as frames
from typing import Any

from stages.distributed.cluster import KEY

LIMIT = 2**16  # bytes of a message
AHEAD = 16  # messages that are read before somebody takes them


class Connection:
    """One end of the connection between the coordinator and a worker."""

    def __init__(self, connection: socket.socket, name: str, key: str, accepted: bool) -> None:
        """Begin to read. The end that accepted the connection gives the first challenge."""
        self.name = name  # the other process
        self.failure = ""  # how it failed
        self.steps_begun = 0  # optimizer steps
        self.last_heard = time.monotonic()
        self.messages: queue.Queue[dict[str, Any] | None] = queue.Queue(AHEAD)  # None: it has failed
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self._frames = connection, frames.Connection(connection.dup().detach())
        self._sending = threading.Lock()
        self._sending.acquire()  # until the challenge is over
        self.reader = threading.Thread(target=self._read, args=(key.encode(), accepted), daemon=True)
        self.reader.start()

    def _read(self, key: bytes, accepted: bool) -> None:
        failure = f" does not pass the challenge: another program, or another {KEY}"
        with contextlib.suppress(Exception):  # lost, or a stranger, who may send anything
            for challenge in (frames.deliver_challenge, frames.answer_challenge)[:: 1 if accepted else -1]:
                challenge(self._frames, key)
            self._sending.release()
            failure = " disconnected: killed, crashed or without network"
            while True:
                message: dict[str, Any] = json.loads(self._frames.recv_bytes(LIMIT))
                self.last_heard = time.monotonic()
                self.steps_begun = message.get("steps_begun", self.steps_begun)
                self.failure = f": {message['error']}" if "error" in message else self.failure
                if not {"steps_begun", "error"} & set(message):
                    self.messages.put(message, timeout=10)
                if "end" in message:
                    return
        self.failure = self.failure or failure
        self.close()
        with contextlib.suppress(queue.Full):
            self.messages.put(None, timeout=10)

    def send(self, within: float = -1, **message: Any) -> None:
        """Send a message. It is dropped if that cannot begin `within` seconds; -1 is no limit."""
        content = json.dumps(message).encode()
        if self._sending.acquire(timeout=within):
            try:
                if within < 0 or select.select([], [self._frames], [], within)[1]:
                    self._frames.send_bytes(content)
            except OSError:
                self.close()  # the reader reports it
            finally:
                self._sending.release()

    def close(self) -> None:
        """Close the connection, which ends the reader too."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
