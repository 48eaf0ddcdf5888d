"""The command that tests/fork_server.py writes: it has the server start a process and ends as that ends."""

import json
import os
import signal
import socket
import sys


def main() -> None:
    """Start what the command line names."""
    address, *arguments = sys.argv[1:]
    if arguments[:1] not in (["-m"], ["-c"]):
        os.execv(sys.executable, [sys.executable, *arguments])
    request = {
        "arguments": arguments,
        "executable": f"{os.path.dirname(address)}/python",
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "cores": sorted(os.sched_getaffinity(0)),
        "umask": os.umask(0),
    }
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.connect(address)
    socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
    status = int(server.recv(32) or signal.SIGKILL)  # nothing: the server has ended and killed the fork
    if not os.WIFSIGNALED(status):
        sys.exit(os.WEXITSTATUS(status))
    if status == signal.SIGINT:
        signal.signal(status, signal.SIG_DFL)  # no second traceback
    os.kill(os.getpid(), os.WTERMSIG(status))


if __name__ == "__main__":
    main()
