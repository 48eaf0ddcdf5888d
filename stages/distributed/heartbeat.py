"""Heartbeats between the processes of a cluster, and what follows from them.

`tf.distribute` stops with many lines when a process dies, and waits without limit when one hangs. Here a
process that detects a failure of another names it in one line and ends itself at once. All files are
written atomically, so nothing is lost but the present epoch.
"""

import contextlib
import os
import queue
import threading
import time
from typing import Any

from stages.distributed.connection import Connection

COLLECTIVE = {"UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError", "InternalError"}


class HeartbeatMonitor(threading.Thread):
    """Sends heartbeats, and ends this process when another one fails, until its `with` block is left."""

    def __init__(self, timeout: float, advice: str) -> None:
        super().__init__(daemon=True)
        self.timeout = timeout  # seconds without a message, or in a step, that count as a failure
        self.advice = advice  # what the user can do about a failure; without it nothing is printed
        self.connections: list[Connection] = []  # to the other processes
        self.at_end = contextlib.ExitStack()  # what to do before this process ends, however it ends
        self.progress = lambda: (0, 0)  # optimizer steps that are begun and done here
        self._stopped, self._deciding = threading.Event(), threading.Lock()
        self._stderr = os.dup(2)  # 2 is redirected while TensorFlow is imported (training/device.py)

    def __enter__(self) -> "HeartbeatMonitor":
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.connections and type(error).__name__ in COLLECTIVE:
            time.sleep(3 * min(1.0, self.timeout / 10))  # meanwhile the monitor may find the cause
            cause = " ".join(str(error).split("aborted by:")[-1].replace("\\n", " ").split())[:300]
            self.exit(f"TensorFlow's exchange between the workers failed: {cause}")
        with self._deciding:
            self._stopped.set()
        self.send(1, **({"end": True} if error is None else {"error": str(error)[:2000] or "interrupted"}))
        for each in self.connections:
            each.reader.join(5)  # the end of this process could lose a message that is on its way
        self.at_end.close()

    def run(self) -> None:
        """Check all connections, ten times within the time-out and at least once a second."""
        seen, checked, stepped = (0, 0), time.monotonic(), time.monotonic()
        while not self._stopped.wait(pause := min(1.0, self.timeout / 10)):
            now, progress = time.monotonic(), self.progress()
            if progress != seen:
                seen, stepped = progress, now
            self.send(0, steps_begun=progress[0])
            # a process that was itself suspended first has to read what came meanwhile
            awake, checked = now - checked < 3 * pause, now
            in_step = now - stepped if self.connections and progress[0] > progress[1] else 0.0
            if failure := self._failure(now, awake, progress[0], in_step):
                self.exit(failure)

    def _failure(self, now: float, awake: bool, begun: int, in_step: float) -> str:
        limit = f"{self.timeout:g} s (train.worker_timeout)"
        for each in list(self.connections):
            if each.failure:
                return each.name + each.failure
            if awake and now - each.last_heard > self.timeout:
                return f"{each.name} sent no heartbeat for {limit}: it hangs or is cut off"
        behind = " and ".join(each.name for each in self.connections if each.steps_begun < begun)
        if behind and in_step > self.timeout:
            return f"{behind} did not take part in a step for {limit}: it hangs"
        if in_step > 10 * self.timeout:
            why = "either it takes longer, or not every host reaches every port in TF_CONFIG"
            return f"a step has not ended in ten times {limit}, though all take part in it: {why}"
        return ""

    def send(self, within: float = -1, **message: Any) -> None:
        """Send a message to all other processes, as `Connection.send` does."""
        for each in list(self.connections):
            each.send(within, **message)

    def receive(self, connection: Connection, limit: float | None = None) -> dict[str, Any]:
        """Receive another process's next message; if it fails or needs longer, end this process."""
        try:
            if (message := connection.messages.get(timeout=limit)) is not None:
                return message
        except queue.Empty:
            self.exit(f"{connection.name} did not get ready in {limit:g} s (ten times train.worker_timeout)")
        self.join()  # reports the reason and ends the process
        raise SystemExit(1)

    def exit(self, failure: str) -> None:
        """Tell the others and the user of a failure, and end the process, unless the monitor is stopped."""
        with self._deciding:
            if not self._stopped.is_set():
                self.at_end.close()
                self.send(1, error=failure[:2000])
                if self.advice:
                    newline = "\n" if os.isatty(self._stderr) else ""  # a progress bar may stand there
                    line = f"{newline}error: {' '.join(failure.split())}; {self.advice}\n"
                    os.write(self._stderr, line.encode())
                os._exit(1)
