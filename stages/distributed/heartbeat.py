"""Heartbeats and failure detection between the processes of a cluster.

`tf.distribute` stops with a message of many lines when a process dies, and waits without limit when one
hangs. So the coordinator and each worker keep a connection of their own. Over it both sides send a
heartbeat at least every second, with the optimizer steps they have begun. A process that detects a failure
of another names it in one line and ends itself at once, whatever its other threads are doing. All files are
written atomically, so nothing is lost but the present epoch.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from stages.distributed.connection import Connection

COLLECTIVE_ERRORS = {
    *("UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError", "InternalError"),
}


class HeartbeatMonitor(threading.Thread):
    """Sends heartbeats, and ends this process when another one has failed.

    Attributes:
        timeout: seconds without a heartbeat, or in a step, that count as a failure.
        progress: a function that returns the optimizer steps that this process has begun and has done.
        stopped: set once failures no longer matter.
    """

    def __init__(
        self,
        connections: list[Connection],
        timeout: float,
        advice: str,
        before_exit: Callable[[str], object] = lambda failure: None,
    ) -> None:
        """Create the monitor; `start` runs it.

        Args:
            connections: to the other processes; the list may grow.
            timeout: seconds that count as a failure.
            advice: what the user can do about a failure. Without it, nothing is printed.
            before_exit: called with the failure before the process ends with exit code 1.
        """
        super().__init__(daemon=True)
        self.timeout = timeout
        self.progress: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self.stopped = threading.Event()
        self._connections, self._advice, self._before_exit = connections, advice, before_exit
        self._stderr = os.dup(2)  # 2 is redirected while TensorFlow is imported (training/device.py)
        self._deciding = threading.Lock()

    def run(self) -> None:
        """Check all connections, ten times within the time-out and at least once a second."""
        pause = min(1.0, self.timeout / 10)
        checked = stepped = time.monotonic()
        seen = (0, 0)
        while not self.stopped.wait(pause):
            now, progress = time.monotonic(), self.progress()
            if progress != seen:
                seen, stepped = progress, now
            for connection in list(self._connections):
                connection.send_without_waiting(steps_begun=progress[0])
            # a process that was itself suspended first has to read what came meanwhile
            awake, checked = now - checked < 3 * pause, now
            if failure := self._failure(now, awake, stepped, *progress):
                self.exit(failure)

    def _failure(self, now: float, awake: bool, stepped: float, begun: int, done: int) -> str:
        """Describe what is wrong; empty if nothing is."""
        limit = f"{self.timeout:g} s (train.worker_timeout)"
        for each in list(self._connections):
            if each.error:
                return f"{each.name}: {each.error}"
            if each.closed and not each.ended:
                return f"{each.name} disconnected: killed, crashed or without network"
            if awake and not each.closed and now - each.last_heard > self.timeout:
                return f"{each.name} sent no heartbeat for {limit}: it hangs or is cut off"
        in_step = now - stepped if begun > done else 0.0
        behind = " and ".join(each.name for each in self._connections if each.steps_begun < begun)
        if behind and in_step > self.timeout:
            return f"{behind} did not take part in a step for {limit}: it hangs"
        if in_step > 10 * self.timeout:
            return (
                f"a step has not ended in ten times {limit}, though all take part in it: either it takes "
                "longer, or not every host reaches every port in TF_CONFIG"
            )
        return ""

    def receive(self, connection: Connection) -> dict[str, Any]:
        """Receive the next message of another process; where that has failed, end this process."""
        message = connection.receive()
        if message is None:
            self.join()  # reports the reason and ends the process
            raise SystemExit(1)
        return message

    def exit(self, failure: str) -> None:
        """Report the failure and end the process, from any thread, unless the monitor is stopped."""
        with self._deciding:
            if not self.stopped.is_set():
                self._before_exit(failure)
                if self._advice:
                    newline = "\n" if os.isatty(self._stderr) else ""  # a progress bar may stand there
                    os.write(self._stderr, f"{newline}error: {failure}; {self._advice}\n".encode())
                os._exit(1)

    def stop(self) -> None:
        """Stop the monitor: training is over, failures no longer matter."""
        with self._deciding:
            self.stopped.set()


@contextlib.contextmanager
def reported_by(monitor: HeartbeatMonitor) -> Iterator[None]:
    """Let the monitor report which process made a collective operation fail."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ not in COLLECTIVE_ERRORS:
            raise
        time.sleep(3 * min(1.0, monitor.timeout / 10))
        cause = " ".join(str(error).split("aborted by:")[-1].replace("\\n", " ").split())[:300]
        monitor.exit(f"TensorFlow's exchange between the workers failed: {cause}")
        raise
