"""Training by several processes: the same bytes, and every fault named; real processes and sockets."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from stages.cluster import cluster_of_tf_config, cluster_to_lead, first_difference
from stages.errors import StageError
from tests.conftest import ROOT, Project, free_ports, outputs, tf_config, trained

EPOCHS = 24
TIMEOUT = 8  # seconds, train.worker_timeout where a test waits for it


def without_training(project: Project) -> None:
    """Leave nothing of the train stage, neither in the store nor to be found by way of `dvc.lock`."""
    lock = yaml.safe_load((project.root / "dvc.lock").read_text(encoding="utf-8"))
    for stage in ("train", "sample"):
        lock["stages"].pop(stage, None)
    (project.root / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    for path in ("models/epochs", ".dvc/cache/snapshots", ".dvc/cache/runs", "metrics/train"):
        shutil.rmtree(project.root / path, ignore_errors=True)
    (project.root / "models/model.keras").unlink(missing_ok=True)


def start(project: Project, *command: str, prefix: tuple[str, ...] = (), **environment: str):
    """Start `python -m COMMAND` in a project."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", *command],
        cwd=project.root,
        env={**project.environment, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def nobody_is_left(*roots: Path) -> bool:
    """Whether no process works in these folders any more, within a few seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(Path(process.cwd()).is_relative_to(root) for root in roots):
                    left.append(process)
        if not left:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory) -> Project:
    """The small project after `EPOCHS` epochs in one process."""
    root = tmp_path_factory.mktemp("undisturbed") / "project"
    shutil.copytree(finished.root, root, symlinks=True)
    project = Project(root, train__epochs=EPOCHS, train__worker_timeout=TIMEOUT)
    without_training(project)
    project.dvc("repro", "sample")
    return project


@pytest.fixture
def untrained(undisturbed, tmp_path) -> Project:
    """A copy of it in which nothing is trained yet."""
    root = tmp_path / "project"
    shutil.copytree(undisturbed.root, root, symlinks=True)
    project = Project(root)
    without_training(project)
    return project


@pytest.fixture
def host(untrained, tmp_path) -> Project:
    """Another host's clone: the same code and windows, nothing else."""
    root = tmp_path / "host"
    for name in ("stages", "data"):
        shutil.copytree(untrained.root / name, root / name)
    shutil.copy(untrained.root / "params.yaml", root)
    return Project(root)


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bytes(undisturbed, untrained, workers):
    """Losses, weights, optimizer, samples at temperature 0 and above; three workers for four streams."""
    untrained.set_params(train__workers=workers)
    done = untrained.dvc("repro", "sample")
    assert done.stdout.count("waiting for worker 1") == 1
    assert outputs(untrained.root) == outputs(undisturbed.root)
    assert nobody_is_left(untrained.root)


def test_other_models_too(untrained):
    settings = {
        "model__cell": "gru",
        "model__layers": 2,
        "model__dropout": 0.3,
        "model__embedding": 5,
        "train__targets": "all",
        "train__optimizer": "adam",
        "train__clip_norm": 1.0,
        "train__schedule": "cosine",
        "train__epochs": 2,
        "train__batch_size": 301,
    }
    untrained.set_params(**settings)
    untrained.run("python", "-m", "stages.train")
    expected = trained(untrained.root)
    without_training(untrained)
    untrained.set_params(train__workers=2)
    untrained.run("python", "-m", "stages.train")
    assert trained(untrained.root) == expected


@contextlib.contextmanager
def two_network_namespaces(name: str) -> Iterator[list[tuple[tuple[str, ...], str]]]:
    """Two hosts with a cable between them, each (command prefix, address), or a skip."""
    names = [f"{name}{n}" for n in (0, 1)]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        for each in names:
            ip("netns", "add", each)
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for n, each in enumerate(names):
            ip("link", "set", each, "netns", each)
            for command in (
                ["address", "add", f"10.77.0.{n + 1}/24", "dev", each],
                ["link", "set", each, "up"],
                ["link", "set", "lo", "up"],
            ):
                ip("netns", "exec", each, "ip", *command)
    except (OSError, subprocess.CalledProcessError) as error:
        for each in names:
            subprocess.run(["ip", "netns", "delete", each], capture_output=True, check=False)
        pytest.skip(f"network namespaces take root on Linux and iproute2: {error}")
    try:
        yield [(("ip", "netns", "exec", each), f"10.77.0.{n + 1}") for n, each in enumerate(names)]
    finally:
        for each in names:
            subprocess.run(["ip", "netns", "delete", each], check=False)


@pytest.mark.skipif(not shutil.which("ip"), reason="ip is Linux's")
def test_two_hosts_and_a_cable_that_is_cut(undisturbed, untrained, host):
    """Each in a network namespace of its own, with the same port; the worker is there first."""
    with two_network_namespaces(f"t{os.getpid() % 100_000}") as [(chief, first), (worker, second)]:
        addresses = [f"{first}:2222", f"{second}:2222"]
        before = {path: path.stat().st_mtime_ns for path in host.root.rglob("*") if "__" not in str(path)}
        there = start(host, "stages.worker", prefix=worker, TF_CONFIG=tf_config(addresses, 1))
        here = start(untrained, "dvc", "repro", "train", prefix=chief, TF_CONFIG=tf_config(addresses, 0))
        wait_for_epochs(untrained, 3)
        subprocess.run([*chief, "ip", "link", "set", chief[-1], "down"], check=True)
        silent = f"has said nothing for {TIMEOUT} s (train.worker_timeout): it hangs or is cut off"
        assert_one_line(here, f"error: worker 1 ({addresses[1]}) {silent}", 1, others=True)
        assert_one_line(there, f"error: the chief ({addresses[0]}) {silent}", 1)
        subprocess.run([*chief, "ip", "link", "set", chief[-1], "up"], check=True)

        there = start(host, "stages.worker", prefix=worker, TF_CONFIG=tf_config(addresses, 1))
        assert there.stdout is not None
        assert there.stdout.readline().startswith(f"waiting for the chief ({addresses[0]})")
        here = start(untrained, "dvc", "repro", "train", prefix=chief, TF_CONFIG=tf_config(addresses, 0))
        output, errors = here.communicate(timeout=120)
        assert here.returncode == 0, errors
        assert "epochs were computed before" in output
        output, errors = there.communicate(timeout=10)
        assert (there.returncode, errors) == (0, "")
        assert f"worker 1 ({addresses[1]}): epoch {EPOCHS - 1}" in output
    assert trained(untrained.root) == trained(undisturbed.root)
    after = {path: path.stat().st_mtime_ns for path in host.root.rglob("*") if "__" not in str(path)}
    assert after == before  # a worker writes nothing


def wait_for_epochs(project: Project, epochs: int) -> None:
    """Wait until that many snapshots of a training are in the store."""
    deadline = time.monotonic() + 60
    store = project.root / ".dvc/cache/snapshots"
    while len(list(store.glob("*/epoch-*.npz"))) < epochs:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def assert_one_line(process, line: str, code: int, others: bool = False) -> None:
    """The process ends by itself within the time-out, with the line on stderr and no traceback."""
    _, errors = process.communicate(timeout=TIMEOUT + 22)
    assert process.returncode == code or others, errors
    assert "Traceback" not in errors
    found = [text for text in errors.splitlines() if text.startswith("error: ")]
    assert len(found) == 1, errors
    assert found[0].startswith(line)
    if not others:  # DVC says that its stage failed
        assert errors.count("\n") == 1


def test_kills(undisturbed, untrained, host):
    """`kill -9` of a worker, of the chief, of both, a worker that hangs; each resumed from there."""
    with free_ports(2) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]

        def both():
            kept = len(list((untrained.root / ".dvc/cache/snapshots").glob("*/epoch-*.npz")))
            there = start(host, "stages.worker", TF_CONFIG=tf_config(addresses, 1))
            here = start(untrained, "stages.train", TF_CONFIG=tf_config(addresses, 0))
            wait_for_epochs(untrained, kept + 3)
            return here, there

        chief, worker = both()
        worker.kill()
        gone = "is gone: killed, crashed or without network"
        began = time.monotonic()
        assert_one_line(chief, f"error: worker 1 ({addresses[1]}) {gone}", 1)
        assert time.monotonic() - began < TIMEOUT
        worker.communicate()

        chief, worker = both()
        chief.kill()
        assert_one_line(worker, f"error: the chief ({addresses[0]}) {gone}", 1)
        chief.communicate()

        chief, worker = both()
        worker.send_signal(signal.SIGSTOP)
        assert_one_line(chief, f"error: worker 1 ({addresses[1]}) has said nothing for {TIMEOUT} s", 1)
        worker.send_signal(signal.SIGCONT)
        assert_one_line(worker, f"error: the chief ({addresses[0]})", 1)

        chief, worker = both()
        for process in (chief, worker):
            process.kill()
            process.communicate()
    assert nobody_is_left(untrained.root, host.root)
    done = untrained.dvc("repro", "train")
    assert "epochs were computed before" in done.stdout
    assert trained(untrained.root) == trained(undisturbed.root)


@pytest.mark.long
def test_kills_at_any_moment(undisturbed, untrained, host):
    """Twenty kills of the chief or the worker, while they start, connect, train or write."""
    rng = random.Random(0)
    store = untrained.root / ".dvc/cache/snapshots"
    with free_ports(2) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        for _ in range(20):
            worker = start(host, "stages.worker", TF_CONFIG=tf_config(addresses, 1))
            chief = start(untrained, "stages.train", TF_CONFIG=tf_config(addresses, 0))
            time.sleep(rng.uniform(0, 8))
            victim, other = rng.sample([chief, worker], 2)
            victim.kill()
            victim.communicate()
            try:
                output, errors = other.communicate(timeout=TIMEOUT + 5)
            except subprocess.TimeoutExpired:
                other.kill()  # a worker may wait for ever for a chief that it has never met
                output, errors = other.communicate()
                assert output.startswith("waiting for the chief")
                assert (other, errors) == (worker, "")
            else:
                gone = "worker 1" if other is chief else "the chief"
                if other.returncode:
                    assert other.returncode == 1
                    assert errors.startswith(f"error: {gone}")
                    assert errors.count("\n") == 1
                else:  # the training was over
                    assert len(list(store.glob("*/epoch-*.npz"))) == EPOCHS
            assert nobody_is_left(untrained.root, host.root)
            if len(list(store.glob("*/epoch-*.npz"))) == EPOCHS:
                untrained.run("python", "-m", "stages.train")
                assert trained(untrained.root) == trained(undisturbed.root)
                without_training(untrained)
    untrained.run("python", "-m", "stages.train")
    assert trained(untrained.root) == trained(undisturbed.root)


def test_a_killed_chief_leaves_no_local_worker(undisturbed, untrained):
    """Nor does a worker that is killed, or Ctrl-C; then with three workers instead of two."""
    untrained.set_params(train__workers=2)
    store = untrained.root / ".dvc/cache/snapshots"
    for victim in ("chief", "worker", "interrupted"):
        kept = len(list(store.glob("*/epoch-*.npz")))
        chief = start(untrained, "stages.train")
        wait_for_epochs(untrained, kept + 3)
        (worker,) = psutil.Process(chief.pid).children()
        if victim == "chief":
            chief.kill()
            chief.communicate()
        elif victim == "worker":
            worker.kill()
            assert_one_line(chief, "error: worker 1 (127.0.0.1:", 1)
        else:
            chief.send_signal(signal.SIGINT)
            assert_one_line(chief, "error: interrupted; whole epochs are kept", 130)
        assert nobody_is_left(untrained.root)
    untrained.set_params(train__workers=3)
    assert "epochs were computed before" in untrained.dvc("repro", "train").stdout
    assert trained(untrained.root) == trained(undisturbed.root)


def test_a_worker_that_never_comes(untrained):
    untrained.set_params(train__worker_timeout=1)
    with free_ports(3) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        chief = start(untrained, "stages.train", TF_CONFIG=tf_config(addresses, 0))
        line = f"error: worker 1 ({addresses[1]}) and worker 2 ({addresses[2]}) did not come within 1 s"
        assert_one_line(chief, line, 1)


def test_a_port_in_use(untrained, host):
    with free_ports(2) as ports, socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        done = untrained.run(
            *("python", "-m", "stages.train"),
            TF_CONFIG=tf_config([f"127.0.0.1:{busy}", f"127.0.0.1:{ports[0]}"], 0),
            code=1,
        )
        cannot = (
            f"port {busy} of 127.0.0.1:{busy} cannot be used (Address already in use); end the program"
        )
        assert done.stderr.startswith(f"error: {cannot}")
        assert done.stderr.count("\n") == 1

        addresses = [f"127.0.0.1:{ports[0]}", f"127.0.0.1:{busy}"]
        chief = start(untrained, "stages.train", TF_CONFIG=tf_config(addresses, 0))
        worker = start(host, "stages.worker", TF_CONFIG=tf_config(addresses, 1))
        assert_one_line(chief, f"error: worker 1 (127.0.0.1:{busy}): {cannot}", 1)
        assert_one_line(worker, f"error: {cannot}", 1)

        # another program where the chief should be, that takes connections and says nothing
        line = f"error: the chief (127.0.0.1:{busy}) has said nothing for 1 s"
        host.set_params(train__worker_timeout=1)
        reversed_ = [f"127.0.0.1:{busy}", f"127.0.0.1:{ports[0]}"]
        assert_one_line(start(host, "stages.worker", TF_CONFIG=tf_config(reversed_, 1)), line, 1)
    assert nobody_is_left(untrained.root, host.root)


def test_an_address_at_which_nobody_is_reached(untrained, host):
    """The worker comes to the chief, but TensorFlow finds it nowhere (an address meant for examples)."""
    with free_ports(2) as ports:
        addresses = [f"127.0.0.1:{ports[0]}", f"192.0.2.1:{ports[1]}"]
        chief = start(untrained, "stages.train", TF_CONFIG=tf_config(addresses, 0))
        worker = start(host, "stages.worker", TF_CONFIG=tf_config(addresses, 1))
        for process in (chief, worker):
            _, errors = process.communicate(timeout=10 * TIMEOUT + 60)
            assert (process.returncode, errors.count("\n")) == (1, 1), errors
            refused = f"TensorFlow's exchange between the workers failed: .*{addresses[1]}"
            dropped = f"a step has not ended in ten times {TIMEOUT} s"
            first = r"((the chief|worker 1) \(.*\): )?"  # whoever finds out first tells the other
            assert re.match(f"error: {first}({refused}|{dropped})", errors), errors


def test_a_host_with_other_windows_or_code_is_named(untrained, host):
    """Parameters of the chief's count, whatever the host's own are."""
    host.set_params(train__learning_rate=0.5, model__units=3)
    with open(host.root / "stages/lstm.py", "a", encoding="utf-8") as file:
        file.write("\n# another version\n")
    with free_ports(2) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        chief = start(untrained, "stages.train", TF_CONFIG=tf_config(addresses, 0))
        worker = start(host, "stages.worker", TF_CONFIG=tf_config(addresses, 1))
        assert_one_line(chief, f"error: worker 1 ({addresses[1]}) has another modules.stages.lstm: ", 1)
        assert_one_line(worker, f"error: the chief ({addresses[0]}): worker 1", 1)


def test_another_number_of_workers_computes_nothing_anew(undisturbed, tmp_path):
    root = tmp_path / "project"
    shutil.copytree(undisturbed.root, root, symlinks=True)
    done = Project(root, train__workers=4).run("python", "-m", "stages.train")
    assert done.stdout.splitlines() == [
        f"{EPOCHS} of {EPOCHS} epochs were computed before and are taken over"
    ]
    assert trained(root) == trained(undisturbed.root)


def test_workers_that_come_when_all_is_done_are_sent_home(undisturbed, host):
    with free_ports(2) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        worker = start(host, "stages.worker", TF_CONFIG=tf_config(addresses, 1))
        done = undisturbed.run("python", "-m", "stages.train", TF_CONFIG=tf_config(addresses, 0))
        assert f"{EPOCHS} of {EPOCHS} epochs were computed before" in done.stdout
        output, errors = worker.communicate(timeout=10)
    assert (worker.returncode, errors) == (0, "")
    assert output.endswith(f"the chief ({addresses[0]}) has no epoch left to compute\n")


GOOD = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("{", "TF_CONFIG: got {; takes JSON like"),
        ('"text"', 'TF_CONFIG: got "text"; takes JSON like'),
        ({"cluster": GOOD["cluster"]}, "takes JSON like"),
        ({**GOOD, "task": {"type": "worker", "index": 2}}, "takes JSON like"),
        ({**GOOD, "cluster": {"worker": ["a", "b:2"]}}, "takes JSON like"),
        ({**GOOD, "cluster": {"worker": ["a:1", "b:99999"]}}, "takes JSON like"),
        (
            {**GOOD, "cluster": {"worker": ["a:1"], "ps": ["b:2"]}},
            "job 'ps'; takes the jobs chief and worker",
        ),
        ({**GOOD, "cluster": {"worker": ["a:1", "a:1"]}}, "takes different addresses and one chief"),
        ({**GOOD, "cluster": {"worker": ["a:1"], "chief": ["b:1", "c:1"]}}, "takes different addresses"),
        ({**GOOD, "task": {"type": "worker", "index": 1}}, "makes this process worker 1 (b:2)"),
        ({**GOOD, "cluster": {"chief": ["c:1"], "worker": ["a:1"]}}, "makes this process worker 0 (a:1)"),
    ],
    ids=str,
)
def test_a_mistake_in_tf_config_is_answered_in_one_line(monkeypatch, config, line):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(StageError) as error:
        cluster_to_lead(1)
    assert line in str(error.value)


def test_clusters(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster_to_lead(1) is None
    local = cluster_to_lead(3)
    assert local is not None
    assert (local.size, local.local) == (3, True)
    monkeypatch.setenv("TF_CONFIG", json.dumps({**GOOD, "cluster": {"worker": ["a:1"]}}))
    assert cluster_of_tf_config() is None
    chief = {
        "cluster": {"worker": ["w:1", "x:1"], "chief": ["c:1"]},
        "task": {"type": "chief", "index": 0},
    }
    monkeypatch.setenv("TF_CONFIG", json.dumps(chief))
    cluster = cluster_to_lead(1)
    assert cluster is not None
    assert [cluster.name(n) for n in range(3)] == ["the chief (c:1)", "worker 0 (w:1)", "worker 1 (x:1)"]
    with pytest.raises(StageError, match=r"^train\.workers: got 2; takes 1 where TF_CONFIG names"):
        cluster_to_lead(2)


def test_more_workers_than_streams(small):
    small.set_params(train__workers=5)
    done = small.run("python", "-m", "stages.train", code=1)
    assert done.stderr.startswith("error: train.workers: got 5 workers; takes at most 4 (train.streams")
    done = small.run("python", "-m", "stages.worker", code=1)
    assert done.stderr.startswith("error: TF_CONFIG: does not make this process a worker; takes")


def test_the_first_difference_is_named():
    ours = {"a": {"b": 1, "c": 2}, "d": 3}
    assert first_difference(ours, json.loads(json.dumps(ours))) == ""
    assert first_difference(ours, {"a": {"b": 1, "c": 4}, "d": 5}) == "another a.c: 4 instead of 2"
    assert first_difference(ours, {"a": {"b": 1, "c": 2}}) == "another d: None instead of 3"


@pytest.mark.parametrize(
    ("begun", "says", "line"),
    [
        (4, 3, "worker 7 did not take part in a step for 0.5 s (train.worker_timeout): it hangs"),
        (
            4,
            4,
            "a step has not ended in ten times 0.5 s (train.worker_timeout), though all take part in it",
        ),
    ],
)
def test_a_step_that_does_not_end(begun, says, line):
    """A worker whose connection lives while its training stands still, on a real connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    code = f"""
import socket, sys
from stages.cluster import Link, Watch
link = Link(socket.socket(fileno={here.fileno()}), "worker 7")
watch = Watch([link], 0.5, "try again")
watch.progress = lambda: ({begun}, {begun} - 1)
watch.run()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        pass_fds=[here.fileno()],
        stderr=subprocess.PIPE,
        text=True,
    )
    here.close()
    began = time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(OSError):
            there.sendall(json.dumps({"begun": says}).encode() + b"\n")
        time.sleep(0.05)
    assert process.stderr is not None
    assert process.stderr.read().startswith(f"error: {line}")
    assert process.returncode == 1
    assert time.monotonic() - began < 10
