"""Training by several processes and hosts gives the same bytes; real processes and sockets."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.cluster_support import (
    EPOCHS,
    TIMEOUT,
    assert_one_line,
    wait_for_epochs,
)
from tests.support import CARRIED, CARRIED_3, Project, free_ports, tf_config, trained, without_training


def test_other_models_too(untrained, host):
    """With a carried state, all that regularizes and bfloat16; the other host has parameters of its own."""
    changes: dict[str, Any] = {
        "model__cell": "gru",
        "train__precision": "mixed_bfloat16",
        "train__epochs": 2,
        "train__keep": "best",
        "train__batch_size": 37,  # two microbatches of 13 rows and one of 11
    }
    untrained.set_params(**CARRIED | CARRIED_3 | changes)
    untrained.run("python", "-m", "stages.vectorize")
    shutil.copy(untrained.root / "data/windows.npz", host.root / "data")
    said = untrained.run("python", "-m", "stages.train").stdout
    assert all(line.strip() for line in said.splitlines())  # with train.preview: 0 no line for it
    expected = trained(untrained.root)
    without_training(untrained)
    with free_ports(2) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        worker = host.start("python", "-m", "stages.worker", TF_CONFIG=tf_config(addresses, 1))
        untrained.run("python", "-m", "stages.train", TF_CONFIG=tf_config(addresses, 0))
        output, errors = worker.communicate(timeout=10)
    assert (worker.returncode, errors) == (0, "")
    assert "epoch 1" in output
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
def test_two_hosts_and_a_cable_that_is_cut(one_process, untrained, host):
    """Each in a network namespace of its own, with the same port; the worker is there first."""
    with two_network_namespaces(f"t{os.getpid() % 100_000}") as [(coordinator, first), (worker, second)]:
        addresses = [f"{first}:2222", f"{second}:2222"]
        before = {path: path.stat().st_mtime_ns for path in host.root.rglob("*") if "__" not in str(path)}
        on_the_host = (*worker, "python", "-m", "stages.worker")
        there = host.start(*on_the_host, fork=False, TF_CONFIG=tf_config(addresses, 1))
        here = untrained.start(
            *(*coordinator, "python", "-m", "dvc", "repro", "train"),
            fork=False,
            TF_CONFIG=tf_config(addresses, 0),
        )
        wait_for_epochs(untrained, 3)
        subprocess.run([*coordinator, "ip", "link", "set", coordinator[-1], "down"], check=True)
        silent = f"sent no heartbeat for {TIMEOUT} s (train.worker_timeout): it hangs or is cut off"
        assert_one_line(here, f"error: worker 1 ({addresses[1]}) {silent}", 1, others=True)
        assert_one_line(there, f"error: the coordinator ({addresses[0]}) {silent}", 1)
        subprocess.run([*coordinator, "ip", "link", "set", coordinator[-1], "up"], check=True)
        if socket.has_dualstack_ipv6():  # the second time over IPv6
            addresses = ["[fd00:77::1]:2222", "[fd00:77::2]:2222"]
            for prefix, address in ((coordinator, "fd00:77::1/64"), (worker, "fd00:77::2/64")):
                add = ["ip", "address", "add", address, "dev", prefix[-1], "nodad"]
                subprocess.run([*prefix, *add], check=True)

        there = host.start(*on_the_host, fork=False, TF_CONFIG=tf_config(addresses, 1))
        assert there.stdout is not None
        assert there.stdout.readline().startswith(f"waiting for the coordinator ({addresses[0]})")
        here = untrained.start(
            *(*coordinator, "python", "-m", "dvc", "repro", "train"),
            fork=False,
            TF_CONFIG=tf_config(addresses, 0),
        )
        output, errors = here.communicate(timeout=120)
        assert here.returncode == 0, errors
        assert "epochs were computed before" in output
        output, errors = there.communicate(timeout=10)
        assert (there.returncode, errors) == (0, "")
        assert f"worker 1 ({addresses[1]}): epoch {EPOCHS - 1}" in output
    assert trained(untrained.root) == trained(one_process.root)
    after = {path: path.stat().st_mtime_ns for path in host.root.rglob("*") if "__" not in str(path)}
    assert after == before  # a worker writes nothing


def test_another_number_of_workers_computes_nothing_anew(one_process, tmp_path):
    root = tmp_path / "project"
    shutil.copytree(one_process.root, root, symlinks=True)
    done = Project(root, train__workers=3).run("python", "-m", "stages.train")
    assert done.stdout.splitlines()[1:] == [
        f"{EPOCHS} of {EPOCHS} epochs were computed before and are taken over"
    ]
    assert trained(root) == trained(one_process.root)


def test_workers_that_wait_are_told_to_end_where_training_has_stopped_early(untrained, host):
    untrained.set_params(vectorize__validation=0.2, train__patience=1, train__learning_rate=0.3)
    untrained.run("python", "-m", "stages.vectorize")
    assert "stopped: no lower val_loss in 1 epochs" in untrained.run("python", "-m", "stages.train").stdout
    done = len(list((untrained.root / "models/checkpoints").iterdir()))
    assert 1 < done < EPOCHS
    before = trained(untrained.root)
    with free_ports(2) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        worker = host.start("python", "-m", "stages.worker", TF_CONFIG=tf_config(addresses, 1))
        assert worker.stdout is not None
        assert worker.stdout.readline().startswith("waiting for the coordinator")
        again = untrained.run("python", "-m", "stages.train", TF_CONFIG=tf_config(addresses, 0))
        assert f"{done} of {EPOCHS} epochs were computed before" in again.stdout
        output, errors = worker.communicate(timeout=10)
    assert (worker.returncode, errors) == (0, "")
    assert output.endswith(f"the coordinator ({addresses[0]}) has no epoch left to compute\n")
    assert trained(untrained.root) == before


def test_more_workers_than_microbatches(small):
    small.set_params(train__workers=3)
    for stage in ("check", "train"):
        done = small.run("python", "-m", f"stages.{stage}", code=1)
        assert done.stderr.startswith("error: train.workers: got 3 workers; takes at most 2 (train.microb")
    small.set_params(train__workers=1)
    three = tf_config([f"127.0.0.1:{port}" for port in (1, 2, 3)], 0)
    done = small.run("python", "-m", "stages.train", TF_CONFIG=three, code=1)
    assert done.stderr.startswith("error: TF_CONFIG: got 3 workers; takes at most 2 (train.microbatches")
    done = small.run("python", "-m", "stages.worker", code=1)
    assert done.stderr.startswith("error: TF_CONFIG: does not make this process a worker; takes")
