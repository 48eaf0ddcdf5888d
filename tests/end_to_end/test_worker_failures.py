"""Failures of workers and of the coordinator: each is named in one line, and nothing is lost."""

import random
import re
import signal
import socket
import subprocess
import time

import psutil
import pytest

from tests.end_to_end.cluster_support import (
    EPOCHS,
    TIMEOUT,
    assert_one_line,
    nobody_is_left,
    wait_for_epochs,
)
from tests.support import free_ports, tf_config, trained, without_training

# With fork=False where TensorFlow's exchange fails: a fork's TensorFlow has the log level of one process, so
# it prints errors that the stage says in one line.
TRAIN, WORKER = (("python", "-m", f"stages.{name}") for name in ("train", "worker"))


def test_kills(one_process, untrained, host):
    """`kill -9` of a worker, of the coordinator, a worker that hangs; each resumed from there."""
    with free_ports(2) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]

        def both():
            kept = len(list((untrained.root / ".dvc/cache/checkpoints").glob("*/epoch-*.npz")))
            there = host.start(*WORKER, fork=False, TF_CONFIG=tf_config(addresses, 1))
            here = untrained.start(*TRAIN, fork=False, TF_CONFIG=tf_config(addresses, 0))
            wait_for_epochs(untrained, kept + 3)
            return here, there

        coordinator, worker = both()
        worker.kill()
        gone = "disconnected: killed, crashed or without network"
        began = time.monotonic()
        assert_one_line(coordinator, f"error: worker 1 ({addresses[1]}) {gone}", 1)
        assert time.monotonic() - began < TIMEOUT
        worker.communicate()

        coordinator, worker = both()
        coordinator.kill()
        assert_one_line(worker, f"error: the coordinator ({addresses[0]}) {gone}", 1)
        coordinator.communicate()

        coordinator, worker = both()
        worker.send_signal(signal.SIGSTOP)
        assert_one_line(coordinator, f"error: worker 1 ({addresses[1]}) sent no heartbeat for {TIMEOUT} s", 1)
        worker.send_signal(signal.SIGCONT)
        assert_one_line(worker, f"error: the coordinator ({addresses[0]})", 1)
    assert nobody_is_left(untrained.root, host.root)
    done = untrained.run(*TRAIN)
    assert "epochs were computed before" in done.stdout
    assert trained(untrained.root) == trained(one_process.root)


@pytest.mark.long
def test_kills_at_any_moment(one_process, untrained, host):
    """Twenty kills of the coordinator or the worker, while they start, connect, train or write."""
    rng = random.Random(0)
    store = untrained.root / ".dvc/cache/checkpoints"
    with free_ports(2) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        for _ in range(20):
            worker = host.start(*WORKER, fork=False, TF_CONFIG=tf_config(addresses, 1))
            coordinator = untrained.start(*TRAIN, fork=False, TF_CONFIG=tf_config(addresses, 0))
            time.sleep(rng.uniform(0, 8))
            victim, other = rng.sample([coordinator, worker], 2)
            victim.kill()
            victim.communicate()
            try:
                output, errors = other.communicate(timeout=TIMEOUT + (22 if other is coordinator else 5))
            except subprocess.TimeoutExpired:
                other.kill()  # a worker may wait for ever for a coordinator that it has never met
                output, errors = other.communicate()
                assert output.startswith("waiting for the coordinator")
                assert (other, errors) == (worker, "")
            else:
                gone = "worker 1" if other is coordinator else "the coordinator"
                if other.returncode:
                    assert other.returncode == 1
                    assert errors.startswith(f"error: {gone}")
                    assert errors.count("\n") == 1
                else:  # the training was over
                    assert len(list(store.glob("*/epoch-*.npz"))) == EPOCHS
            assert nobody_is_left(untrained.root, host.root)
            if len(list(store.glob("*/epoch-*.npz"))) == EPOCHS:
                untrained.run(*TRAIN)
                assert trained(untrained.root) == trained(one_process.root)
                without_training(untrained)
    untrained.run(*TRAIN)
    assert trained(untrained.root) == trained(one_process.root)


def test_a_killed_coordinator_leaves_no_local_worker(one_process, untrained):
    """Nor does Ctrl-C; then with three workers instead of two, which changes no byte."""
    untrained.set_params(train__workers=2)
    store = untrained.root / ".dvc/cache/checkpoints"
    keys = {untrained.environment["CHAR_LSTM_CLUSTER_KEY"]}
    for victim in ("coordinator", "interrupted"):
        kept = len(list(store.glob("*/epoch-*.npz")))
        coordinator = untrained.start(*TRAIN, fork=False)
        wait_for_epochs(untrained, kept + 3)
        (worker,) = psutil.Process(coordinator.pid).children()
        assert worker.cmdline()[1:] == ["-m", "stages.worker", "--local"]
        keys.add(worker.environ()["CHAR_LSTM_CLUSTER_KEY"])
        if victim == "coordinator":
            coordinator.kill()
            coordinator.communicate()
        else:
            coordinator.send_signal(signal.SIGINT)
            assert_one_line(coordinator, "error: interrupted; `dvc repro` resumes after the last", 130)
        assert nobody_is_left(untrained.root)
    assert len(keys) == 3  # each run made a key of its own
    untrained.set_params(train__workers=3)
    done = untrained.dvc("repro", "train")
    assert "epochs were computed before" in done.stdout
    (waited,) = (line for line in done.stdout.splitlines() if line.startswith("waiting for"))
    assert re.findall(r"worker \d", waited) == ["worker 1", "worker 2"]
    assert trained(untrained.root) == trained(one_process.root)
    assert nobody_is_left(untrained.root)


def test_a_worker_that_never_comes(untrained):
    untrained.set_params(train__worker_timeout=1)
    with free_ports(3) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        coordinator = untrained.start(*TRAIN, TF_CONFIG=tf_config(addresses, 0))
        line = f"error: worker 1 ({addresses[1]}) and worker 2 ({addresses[2]}) did not connect within 1 s"
        assert_one_line(coordinator, line, 1)


def test_a_port_in_use(untrained, host):
    with free_ports(2) as ports, socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        done = untrained.run(
            *TRAIN,
            TF_CONFIG=tf_config([f"127.0.0.1:{busy}", f"127.0.0.1:{ports[0]}"], 0),
            code=1,
        )
        cannot = f"port {busy} of 127.0.0.1:{busy} cannot be used (Address already in use); end the program"
        assert done.stderr.startswith(f"error: {cannot}")
        assert done.stderr.count("\n") == 1

        addresses = [f"127.0.0.1:{ports[0]}", f"127.0.0.1:{busy}"]
        coordinator = untrained.start(*TRAIN, TF_CONFIG=tf_config(addresses, 0))
        worker = host.start(*WORKER, TF_CONFIG=tf_config(addresses, 1))
        assert_one_line(coordinator, f"error: worker 1 (127.0.0.1:{busy}): {cannot}", 1)
        assert_one_line(worker, f"error: {cannot}", 1)

        # another program where the coordinator should be, that takes connections and says nothing
        line = f"error: the coordinator (127.0.0.1:{busy}) sent no heartbeat for 1 s"
        host.set_params(train__worker_timeout=1)
        reversed_ = [f"127.0.0.1:{busy}", f"127.0.0.1:{ports[0]}"]
        assert_one_line(host.start(*WORKER, TF_CONFIG=tf_config(reversed_, 1)), line, 1)
    assert nobody_is_left(untrained.root, host.root)


def test_an_address_at_which_nobody_is_reached(untrained, host):
    """The worker reaches the coordinator, but TensorFlow does not reach it (an address for examples)."""
    with free_ports(2) as ports:
        addresses = [f"127.0.0.1:{ports[0]}", f"192.0.2.1:{ports[1]}"]
        coordinator = untrained.start(*TRAIN, fork=False, TF_CONFIG=tf_config(addresses, 0))
        worker = host.start(*WORKER, fork=False, TF_CONFIG=tf_config(addresses, 1))
        for process in (coordinator, worker):
            _, errors = process.communicate(timeout=10 * TIMEOUT + 60)
            assert (process.returncode, errors.count("\n")) == (1, 1), errors
            refused = f"TensorFlow's exchange between the workers failed: .*{addresses[1]}"
            dropped = f"a step has not ended in ten times {TIMEOUT} s"
            first = r"((the coordinator|worker 1) \(.*\): )?"  # whoever finds out first tells the other
            assert re.match(f"error: {first}({refused}|{dropped})", errors), errors


def test_a_host_with_other_windows_or_code_is_named(untrained, host):
    """The coordinator's parameters apply, whatever the host's own are."""
    host.set_params(train__learning_rate=0.5, model__units=3)
    with open(host.root / "stages/model/fused_lstm.py", "a", encoding="utf-8") as file:
        file.write("\nANOTHER = 1\n")
    with free_ports(2) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        coordinator = untrained.start(*TRAIN, TF_CONFIG=tf_config(addresses, 0))
        worker = host.start(*WORKER, TF_CONFIG=tf_config(addresses, 1))
        assert_one_line(
            coordinator, f"error: worker 1 ({addresses[1]}) has another code.stages.model.fused_lstm: ", 1
        )
        assert_one_line(worker, f"error: the coordinator ({addresses[0]}): worker 1", 1)
