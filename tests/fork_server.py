"""Starts Python as a fork of a process that has imported the large packages already.

    python tests/fork_server.py FOLDER

An import of TensorFlow takes seconds, most of the time of a stage of a small project. The server writes
FOLDER/python, which takes `-m MODULE` or `-c CODE` (with other options it is Python itself), and prints a
line when it is ready. When its standard input ends it kills what still runs, deletes FOLDER and ends.

The started process has its own directory, environment, standard descriptors, cores, umask and exit status.
Else it differs from one that is started by itself:

- Its parent is the server. It gets none of the command's signals, but is killed some milliseconds after the
  command has ended. It has the server's limits of resources and namespaces.
- All forks of a server have the same seed of `hash`.
- The packages are imported already. What they read at their import (`PYTHON...`, `TF_CPP_MIN_LOG_LEVEL`, the
  home directory, the number of cores) is the server's.

Where one of these matters, a test starts Python itself. Nothing of the project is imported here, since tests
change it.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import types
from pathlib import Path

PACKAGES = [
    *("keras", "tensorflow", "h5py", "altair", "jinja2", "narwhals", "pydantic", "yaml"),
    *("dvc.cli.parser", "dvc.repo.experiments.queue.celery", "dvc.stage.run", "dvc.utils.hydra"),
    *("dvc_render", "networkx", "pygit2", "pyparsing", "ruamel.yaml"),  # DVC imports them where it needs them
]
# as stages/training/device.py sets them before its import; XLA reads its flags later, at its first use
LOADED_WITH = {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
STANDARD = [0, 1, 2]


def main() -> None:
    """Serve until standard input ends; in a started process, run its module."""
    folder = Path(sys.argv[1])
    del sys.path[0]  # the folder of the tests
    os.environ.update(LOADED_WITH)
    for name in PACKAGES:
        importlib.import_module(name)
    import vl_convert

    vl_convert.javascript_bundle()  # type: ignore[call-arg] # takes two seconds once in a process
    gc.freeze()  # a collection would copy the pages that the processes share
    gc.set_threshold(100_000, 50, 100)  # as in tests/conftest.py
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(folder / "socket"))
    listener.listen(64)
    client = Path(__file__).with_name("fork_client.py")
    # the client needs nothing but the standard library
    start = f'exec "{sys.executable}" -I -S "{client}" "{folder}/socket" "$@"'
    (folder / "python").write_text(f"#!/bin/sh\n{start}\n", encoding="utf-8")
    (folder / "python").chmod(0o755)
    print("ready", flush=True)
    request = serve(listener)
    if request is None:
        shutil.rmtree(folder)
    else:
        run(request)


def serve(listener: socket.socket) -> dict | None:
    """Fork for each connection and send it the exit status.

    Returns:
        In a fork, the request that it is for; None when standard input has ended.
    """
    running: dict[int, tuple[int, socket.socket]] = {}  # process, connection, by what tells of the end
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if 0 in ready:
                for process, _ in running.values():
                    os.kill(process, signal.SIGKILL)
                return None
            for ended in ready & running.keys():
                process, connection = running.pop(ended)
                selector.unregister(ended)
                selector.unregister(connection)
                os.close(ended)
                _, status = os.waitpid(process, 0)
                with connection, contextlib.suppress(BrokenPipeError):  # of a command that was killed
                    connection.sendall(str(status).encode())
            for process, connection in running.values():
                if connection.fileno() in ready:  # the client sends nothing more, so it has ended
                    os.kill(process, signal.SIGKILL)
            if listener.fileno() in ready:
                connection, _ = listener.accept()
                request, descriptors, _, _ = socket.recv_fds(connection, 2**20, len(STANDARD))
                process = os.fork()
                if not process:
                    for standard, descriptor in zip(STANDARD, descriptors, strict=True):
                        os.dup2(descriptor, standard)
                        os.close(descriptor)
                    for each, (_, other) in running.items():
                        os.close(each)
                        other.close()
                    connection.close()
                    listener.close()
                    return json.loads(request)
                for descriptor in descriptors:
                    os.close(descriptor)
                ended = os.pidfd_open(process)
                running[ended] = (process, connection)
                selector.register(ended, selectors.EVENT_READ)
                selector.register(connection, selectors.EVENT_READ)


def run(request: dict) -> None:
    """Be the Python that the request asks for."""
    import numpy as np

    os.setsid()
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.umask(request["umask"])
    os.sched_setaffinity(0, request["cores"])
    np.random.seed()  # it was seeded once, for all forks
    sys.executable = request["executable"]  # so that what it starts is a fork, too
    option, what, *arguments = request["arguments"]
    sys.argv = [option, *arguments]
    if option == "-m":
        sys.path.insert(0, request["directory"])
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, "")
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), vars(module))


if __name__ == "__main__":
    main()
