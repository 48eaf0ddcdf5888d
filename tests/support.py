"""What tests and benchmarks share: a made-up text, parameters, and clones of the project to run in."""

import atexit
import contextlib
import copy
import fcntl
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parent.parent
# of NVIDIA's driver; the last one is that of Windows's subsystem for Linux
TRACES_OF_A_DRIVER = ("/dev/nvidia0", "/proc/driver/nvidia/version", "/dev/dxg")
DRIVER = bool(shutil.which("nvidia-smi")) or any(map(os.path.exists, TRACES_OF_A_DRIVER))
# the server takes Linux's pidfd; and a fork cannot use a driver that was loaded before
FORKS = hasattr(os, "pidfd_open") and not DRIVER


def make_text(characters: int, seed: int = 0) -> str:
    """Lines of made-up words: learnable, and nobody's text but ours."""
    rng = np.random.default_rng(seed)
    syllables = ["ba", "di", "Ko", "lu", "me", "no", "Pi", "ra", "sy", "tu", "ve", "xo"]
    words = ["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(60)]
    lines: list[str] = []
    while sum(map(len, lines)) < characters:
        lines.append(" ".join(rng.choice(words, rng.integers(3, 9))) + rng.choice([".", ",", "!"]) + "\n")
    return "".join(lines)[:characters]


def changed_params(**changes: Any) -> dict[str, Any]:
    """The committed params.yaml as a tree, with `section__key=value` changed."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for name, value in changes.items():
        section, key = name.split("__")
        tree[section][key] = value
    return copy.deepcopy(tree)


@functools.cache
def fork_server() -> tuple[subprocess.Popen, Path]:
    """The server of tests/fork_server.py, which ends with this process, and its folder."""
    folder = Path(tempfile.mkdtemp(prefix="forks-"))
    with open(folder / "errors", "wb") as errors:
        server = subprocess.Popen(
            [sys.executable, ROOT / "tests/fork_server.py", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for the tests, whose end is the server's
        )
    assert server.stdin is not None
    assert server.stdout is not None
    atexit.register(server.wait)
    atexit.register(server.stdin.close)
    assert server.stdout.readline() == b"ready\n", (folder / "errors").read_text(encoding="utf-8")
    return server, folder


def forking_python() -> str:
    """A Python whose processes are forks of one that has imported TensorFlow.

    Where `FORKS` is false it is Python itself.
    """
    if not FORKS:
        return sys.executable
    server, folder = fork_server()
    assert server.poll() is None, (folder / "errors").read_text(encoding="utf-8")
    return str(folder / "python")


class Project:
    """A working copy of the project that is run as a user runs it, with a small corpus."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.root = root
        not_the_user_s = {"CORPUS_DIR", "TF_CONFIG", "TF_CPP_MIN_LOG_LEVEL"}
        self.environment = {
            **{key: value for key, value in os.environ.items() if key not in not_the_user_s},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@example.invalid",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@example.invalid",
            "CHAR_LSTM_CLUSTER_KEY": "a secret of the tests",
            "PIP_NO_INDEX": "1",  # the suite runs with no network
        }
        self.set_params(**changes)

    def set_params(self, **changes: Any) -> None:
        """Change `section__key=value` in the copy's params.yaml."""
        path = self.root / "params.yaml"
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, value in changes.items():
            section, key = name.split("__")
            tree[section][key] = value
        path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")

    def start(
        self, *command: str, fork: bool = True, stdin: int = subprocess.DEVNULL, **environment: str
    ) -> subprocess.Popen:
        """Start a command in the copy.

        Its `python`, also as DVC starts it, is `forking_python`. With `fork` False it is Python itself; the
        description of tests/fork_server.py says where that matters.
        """
        python = forking_python() if fork else sys.executable
        path = f"{Path(python).parent}{os.pathsep}{self.environment.get('PATH', os.environ['PATH'])}"
        return subprocess.Popen(
            command,
            cwd=self.root,
            env={**self.environment, "PATH": path, **environment},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *command: str, code: int | None = 0, given: str = "", **options: Any
    ) -> subprocess.CompletedProcess:
        """Start a command, with `given` as its input; `code` is the exit code it must have (None: any)."""
        with self.start(*command, stdin=subprocess.PIPE, **options) as process:
            try:
                said = process.communicate(given, timeout=300)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(command, process.returncode, *said)
        output = f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert code is None or done.returncode == code, output
        return done

    def dvc(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess:
        """Run DVC in the copy."""
        return self.run("python", "-m", "dvc", *arguments, **options)

    def read(self, path: str) -> bytes:
        """A file's content."""
        return (self.root / path).read_bytes()


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Make a folder once for all processes of a test run, and give each process a copy of its own."""
    base = tmp_path_factory.getbasetemp()
    template = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"template-{name}"
    with open(f"{template}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            part = template.with_suffix(".part")
            part.mkdir()  # fails in the other processes if this one fails
            make(part)
            part.rename(template)
    root = tmp_path_factory.mktemp(name) / "project"
    shutil.copytree(template, root, symlinks=True)
    return root


def outputs(root: Path) -> dict[str, bytes]:
    """Every output file of the pipeline and its content."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for folder in ("data", "models", "metrics")
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and path.name != ".gitignore"
    }


def trained(root: Path) -> dict[str, bytes]:
    """What the train stage writes."""
    return {name: content for name, content in outputs(root).items() if not name.startswith("metrics/s")}


def tf_config(addresses: list[str], index: int) -> str:
    """The environment variable as the user of several hosts sets it."""
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


@contextlib.contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Ports of the loopback interface that nobody else is given meanwhile."""
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(socket.socket()) for _ in range(count)]
        for holder in holders:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
        yield [holder.getsockname()[1] for holder in holders]


def of_check(files: dict[str, bytes]) -> dict[str, bytes]:
    """The outputs of `check`, which DVC removes before it runs this stage."""
    return {name: files[name] for name in ("data/corpus_files.json", "data/initial_files.json")}


SMALL = {
    "download__corpus": "corpora/book.txt",
    "download__offline_corpus": None,
    "vectorize__maxlen": 12,
    "model__units": 16,
    "train__epochs": 2,
    "train__batch_size": 128,
    "train__microbatches": 2,  # each is compiled, which takes most of the time of so small a run
    "train__preview": 0,  # its program would be compiled, too
    "sample__length": 20,
    "sample__temperatures": [0.0, 0.5, 1.0],
}

# a model that is compiled and trained in a moment
FEW: dict[str, Any] = {
    "vectorize__maxlen": 5,
    "model__units": 4,
    "train__microbatches": 2,
    "train__preview": 0,
}


def without_training(project: Project) -> None:
    """Leave nothing of the train stage, neither in the store nor to be found by way of `dvc.lock`."""
    lock = yaml.safe_load((project.root / "dvc.lock").read_text(encoding="utf-8"))
    for stage in ("train", "sample"):
        lock["stages"].pop(stage, None)
    (project.root / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    for path in ("models/checkpoints", ".dvc/cache/checkpoints", ".dvc/cache/runs", "metrics/train"):
        shutil.rmtree(project.root / path, ignore_errors=True)
    (project.root / "models/model.keras").unlink(missing_ok=True)


# another value of almost every parameter of the model and of training
EVERYTHING: dict[str, Any] = {
    "vectorize__maxlen": 5,  # a fused step is compiled for each position
    "vectorize__validation": 0.2,
    "model__units": 12,
    "model__layers": 2,
    "model__dropout": 0.3,
    "model__embedding": 7,
    "train__batch_size": 64,
    "train__targets": "all",
    "train__optimizer": "adam",
    "train__schedule": "cosine",
    "train__warmup_epochs": 0.5,
    "train__decay_epochs": 3,
    "train__clip_norm": 1.0,
    "train__microbatches": 3,
    "train__preview": 0,
}
# likewise, with a state that is carried, and all that regularizes
CARRIED = EVERYTHING | {
    "vectorize__maxlen": 9,
    "vectorize__step": 9,
    "vectorize__validation_step": 9,
    "model__embedding": 12,
    "train__batch_size": 16,
    "train__state": "carried",
    "train__weight_decay": 0.1,
    "train__ema_momentum": 0.9,
    "train__weight_dropout": 0.3,
    "train__embedding_dropout": 0.2,
    "train__variational_dropout": True,
    "train__tied_embedding": True,
}
# added to it, windows of three characters
CARRIED_3 = {f"vectorize__{name}": 3 for name in ("maxlen", "step", "validation_step")}


def copy_of_the_project(target: Path) -> None:
    """The files git knows, as they are in the working tree, in a git and DVC repository of their own."""
    listed = subprocess.run(
        # with new files, but not with texts and models of the user's own
        ["git", "ls-files", "-zco", "--exclude-standard", "-x/corpora/*", "-x/initial/*"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock" and not name.startswith("metrics/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
