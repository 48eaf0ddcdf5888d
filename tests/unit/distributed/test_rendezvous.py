"""Rendezvous and hand-out, on real connections over loopback; other processes are threads here."""

import contextlib
import json
import multiprocessing.connection
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stages.common.errors import StageError
from stages.distributed.cluster import Cluster, listen, split_address
from stages.distributed.connection import LIMIT, Connection
from stages.distributed.coordinator import PIECE, STRANGERS, dismiss, gather, hand_out, meet
from stages.distributed.heartbeat import HeartbeatMonitor
from tests.support import ROOT, free_ports, tf_config


@pytest.fixture
def cluster():
    """A coordinator and two workers on this machine."""
    with free_ports(3) as ports:
        addresses = tuple(f"127.0.0.1:{port}" for port in ports)
        yield Cluster(addresses, ("the coordinator", "worker 1", "worker 2"), key="k" * 20)


class Monitor(HeartbeatMonitor):
    """Notes failures, and does not end this process."""

    def __init__(self) -> None:
        super().__init__(0.5, "")
        self.failures: list[str] = []

    def exit(self, failure: str) -> None:
        self.failures.append(failure)
        self._stopped.set()


def worker(cluster: Cluster, index: int, address: str = "", key: str | None = None) -> Connection:
    """A worker that connects, once the coordinator listens, and introduces itself."""
    deadline = time.monotonic() + 5
    while True:
        try:
            to = socket.create_connection(split_address(address or cluster.addresses[0]))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            break
    key = cluster.key if key is None else key
    connection = Connection(to, "the coordinator", key, accepted=False)
    introduction = {"index": index, "addresses": cluster.addresses}
    threading.Thread(target=connection.send, kwargs=introduction, daemon=True).start()
    return connection


def met(cluster: Cluster, timeout: float = 5) -> list[str]:
    """The names of the workers in the order in which the coordinator meets them."""
    with listen(cluster.addresses[0]) as server:
        return [each.name for each in meet(server, cluster, timeout) if each]


def junk() -> list[bytes]:
    """What programs of others send to a port."""
    return [
        b"",
        b'{"index": [1]}\n',
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x7f\xff\xff\xff" + bytes(10**6),  # "two gigabytes follow"
        b"\xff\xff\xff\xff" + b"\xff" * 8,
        b"\x00\x00\x00\x14" + bytes(20) + bytes(10**6),
        bytes(range(256)) * 4000,
        b"x" * 10**7,
    ]


def test_strangers_do_not_delay_the_rendezvous(cluster):
    """They send junk or nothing, and keep the connection open; there are more than are kept."""
    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
        meeting = pool.submit(met, cluster)
        first = worker(cluster, 1)
        strangers = []
        for content in [b""] * (STRANGERS + 10) + junk():
            to = stack.enter_context(socket.create_connection(split_address(cluster.addresses[0]), timeout=5))
            strangers.append(to)
            to.setblocking(False)
            with contextlib.suppress(OSError):
                to.send(content)
        strangers[0].settimeout(2)
        assert strangers[0].recv(100)[4:].startswith(b"#CHALLENGE#")
        assert strangers[0].recv(100) == b""
        began = time.monotonic()
        second = worker(cluster, 2)
        assert meeting.result(5) == [cluster.name(1), cluster.name(2)]
        assert time.monotonic() - began < 2
        assert not first.failure + second.failure
        for each in strangers:  # all are refused, those that said nothing when it was over
            each.settimeout(5)
            with contextlib.suppress(ConnectionError):
                while each.recv(LIMIT):
                    pass


@pytest.mark.parametrize(
    "messages",
    [
        [b'{"index": [1]}'],
        [b"[1]", b"1", b"null", b'"x"'],
        [b"[" * 60_000],
        [b"\xff\xfe"],
        [b'{"index": 1, "addresses": ["127.0.0.1:1"]}'],
        [b'{"index": 3}', b'{"index": -1}', b'{"index": true}', b"{}"],
        [json.dumps({"steps_begun": [], "error": {}, "piece": 5}).encode()] * 3,
        [b'{"a": "' + b"x" * (LIMIT - 100) + b'"}'] * 500,
        [b'{"a": "' + b"x" * 500 * LIMIT + b'"}'],
    ],
    ids=range(9),
)
def test_junk_from_one_that_knows_the_key_does_no_harm(cluster, messages):
    """As without a key: everybody passes the challenge then."""

    def send():
        with contextlib.suppress(OSError):
            for message in messages:
                frames.send_bytes(message)
                sent.append(len(message))

    sent: list[int] = []
    with ThreadPoolExecutor() as pool:
        meeting = pool.submit(met, cluster)
        first = worker(cluster, 1)
        frames = multiprocessing.connection.Client(
            split_address(cluster.addresses[0]), authkey=cluster.key.encode()
        )
        threading.Thread(target=send, daemon=True).start()
        time.sleep(0.2)
        second = worker(cluster, 2)
        assert meeting.result(5) == [cluster.name(1), cluster.name(2)]
        assert not first.failure + second.failure
        assert sum(sent) < 20 * 10**6  # the last two would send 32 million bytes


def test_a_wrong_key_is_refused_and_named(cluster):
    config = tf_config(list(cluster.addresses), 1)
    command = subprocess.Popen(
        [sys.executable, "-m", "stages.worker"],
        cwd=ROOT,
        env={**os.environ, "TF_CONFIG": config, "CHAR_LSTM_CLUSTER_KEY": "another"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout
    assert command.stdout.readline().startswith("waiting for the coordinator")
    with ThreadPoolExecutor() as pool:
        meeting = pool.submit(met, cluster, 2)
        refused = [worker(cluster, 1, key=key) for key in ("another", "")]
        _, said = command.communicate(timeout=60)
        with pytest.raises(
            StageError, match=r"^worker 1 \(.*\) and worker 2 \(.*\) did not connect within 2 s"
        ):
            meeting.result()
    wrong = " does not pass the challenge: another program, or another CHAR_LSTM_CLUSTER_KEY"
    for each in refused:
        each.reader.join(5)
        assert each.failure == wrong
    name = f"the coordinator ({cluster.addresses[0]})"
    assert said == f"error: {name}{wrong}; start this again for the next `dvc repro`\n"
    assert command.returncode == 1


def test_a_coordinator_without_the_key_gets_nothing(cluster):
    """The challenge goes both ways: it takes the worker's answer for right, and cannot answer itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = worker(cluster, 1, address=f"127.0.0.1:{server.getsockname()[1]}")
        there = multiprocessing.connection.Connection(server.accept()[0].detach())
    there.send_bytes(b"#CHALLENGE#" + bytes(20))
    there.recv_bytes()
    there.send_bytes(b"#WELCOME#")
    there.recv_bytes()
    there.send_bytes(b"x" * 16)
    assert there.recv_bytes() == b"#FAILURE#"
    with pytest.raises(EOFError):  # no introduction
        there.recv_bytes()
    assert "CHAR_LSTM_CLUSTER_KEY" in connection.failure


class Relay:
    """Passes on what two ends send, and notes it; to the worker at most 20,000 bytes in `delay` seconds."""

    def __init__(self, address: str, delay: float) -> None:
        self.address, self.delay, self.passed = address, delay, bytearray()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.own = f"127.0.0.1:{self.server.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        with (
            self.server,
            self.server.accept()[0] as to_worker,
            socket.create_connection(split_address(self.address)) as to_coordinator,
        ):
            back = (to_worker, to_coordinator, 0.0)
            threading.Thread(target=self.pass_on, args=back, daemon=True).start()
            self.pass_on(to_coordinator, to_worker, self.delay)

    def pass_on(self, source: socket.socket, target: socket.socket, delay: float) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(20_000):
                time.sleep(delay if len(content) > 10_000 else 0)
                target.sendall(content)
                self.passed += content
            target.shutdown(socket.SHUT_WR)


def test_a_checkpoint_that_takes_long_to_send_ends_nothing(cluster):
    """Over three times the time-out; the other worker, which has it at once, waits for this one."""
    state = bytes(range(256)) * 1000 + b"."
    with (coordinator := Monitor()), ThreadPoolExecutor() as pool:
        gathering = pool.submit(gather, cluster, {"units": 3}, coordinator)
        fast = worker(cluster, 2)
        relay = Relay(cluster.addresses[0], delay=0.12)
        slow = worker(cluster, 1, address=relay.own)
        monitors: list[Monitor] = []
        for each in (fast, slow):
            monitors.append(Monitor())
            monitors[-1].connections.append(each)
            monitors[-1].start()
            assert each.messages.get(timeout=5) == {"job": {"units": 3}}
            each.send(inputs=each is slow)
        assert gathering.result(5) == {cluster.name(1): {"inputs": True}, cluster.name(2): {"inputs": False}}
        began = time.monotonic()
        handing = pool.submit(hand_out, state, coordinator)
        for each in (fast, slow):
            assert each.messages.empty()  # nothing is sent to one that may not read yet
        fast.send(ready=True)
        slow.send(ready=True)
        received = [bytearray(), bytearray()]
        for content, each, monitor in zip(received, (fast, slow), monitors, strict=True):
            while "piece" in (message := monitor.receive(each)):
                content += message["piece"].encode()
            assert message == {"complete": True}
            assert not handing.done()  # nobody starts before all have the state
            each.send(complete=True)
        handing.result(5)
        assert time.monotonic() - began > 1.5
        assert received[0] == received[1]
        assert len(received[0]) == pytest.approx(len(state) * 4 / 3, rel=0.01)
        assert len(state) > 10 * PIECE
        assert [monitor.failures for monitor in (coordinator, *monitors)] == [[]] * 3
        assert b'{"steps_begun": 0}' in relay.passed
        assert cluster.key.encode() not in relay.passed
        for monitor, each in zip(monitors, (fast, slow), strict=True):
            monitor._stopped.set()
            each.close()


def test_workers_that_wait_are_told_to_end(cluster):
    with ThreadPoolExecutor() as pool:
        dismissing = pool.submit(dismiss, cluster)
        workers = [worker(cluster, index) for index in (1, 2)]
        for each in workers:
            assert each.messages.get(timeout=5) == {"end": True}
            each.close()
        dismissing.result(5)
    assert all(each.failure == "" for each in workers)


def test_the_same_worker_twice_and_another_cluster_are_refused(cluster):
    other = Cluster(cluster.addresses[:2], cluster.names[:2], key=cluster.key)
    with ThreadPoolExecutor() as pool:
        meeting = pool.submit(met, cluster)
        first = worker(cluster, 1)
        time.sleep(0.2)
        refused = [worker(cluster, 1), worker(other, 1)]
        time.sleep(0.3)
        second = worker(cluster, 2)
        assert meeting.result(5) == [cluster.name(1), cluster.name(2)]
    for each in refused:
        each.reader.join(5)
        assert each.failure == ": its TF_CONFIG is another, or has another worker of this index"
    assert not first.failure + second.failure


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize("host", ["[::1]", "localhost", "127.0.0.1"])
def test_ipv6_and_ipv4(host):
    with free_ports(2) as ports:
        addresses = tuple(f"{host}:{port}" for port in ports)
        cluster = Cluster(addresses, ("the coordinator", "worker 1"))
        with ThreadPoolExecutor() as pool:
            meeting = pool.submit(met, cluster)
            worker(cluster, 1)
            assert meeting.result(5) == [f"worker 1 ({addresses[1]})"]
