"""Clusters: what TF_CONFIG and train.workers describe."""

import json

import pytest

from stages.common.errors import StageError
from stages.distributed.cluster import (
    Cluster,
    cluster_of_tf_config,
    cluster_to_coordinate,
    share_of_host,
    split_address,
)

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
        ({**GOOD, "cluster": {"worker": ["a:1", "::1:2222"]}}, '["host0:2222", "[fd00::1]:2222"]}'),
        ({**GOOD, "cluster": {"worker": ["a:1", "[::1]2222"]}}, '["host0:2222", "[fd00::1]:2222"]}'),
        ({**GOOD, "cluster": {"worker": ["[::1]:1", "[::1]:1"]}}, "with different addresses"),
        (
            {**GOOD, "cluster": {"worker": ["a:1"], "ps": ["b:2"]}},
            "takes the jobs chief and worker, with different addresses",
        ),
        ({**GOOD, "cluster": {"worker": ["a:1", "a:1"]}}, "with different addresses and one chief"),
        ({**GOOD, "cluster": {"worker": ["a:1"], "chief": ["b:1", "c:1"]}}, "with different addresses"),
        ({**GOOD, "task": {"type": "worker", "index": 1}}, "makes this process worker 1 (b:2)"),
        ({**GOOD, "cluster": {"chief": ["c:1"], "worker": ["a:1"]}}, "makes this process worker 0 (a:1)"),
    ],
    ids=str,
)
def test_a_mistake_in_tf_config_is_answered_in_one_line(monkeypatch, config, line):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(StageError) as error:
        cluster_to_coordinate(1)
    assert line in str(error.value)


def test_clusters(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster_to_coordinate(1) is None
    local = cluster_to_coordinate(3)
    assert local is not None
    assert local.names == ("the coordinator", "worker 1", "worker 2")
    assert len(local.key) >= 32
    assert local.key not in repr(local)
    for holder in local.local:  # no other program gets these ports
        assert split_address(local.addresses[local.local.index(holder)]) == holder.getsockname()
        holder.close()
    monkeypatch.setenv("TF_CONFIG", json.dumps({**GOOD, "cluster": {"worker": ["a:1"]}}))
    assert cluster_of_tf_config() is None
    chief = {
        "cluster": {"worker": ["w:1", "x:1"], "chief": ["c:1"]},
        "task": {"type": "chief", "index": 0},
    }
    monkeypatch.setenv("TF_CONFIG", json.dumps(chief))
    cluster = cluster_to_coordinate(1)
    assert cluster is not None
    assert [cluster.name(n) for n in range(3)] == [
        "the coordinator (c:1)",
        "worker 0 (w:1)",
        "worker 1 (x:1)",
    ]
    with pytest.raises(StageError, match=r"^train\.workers: got 2; takes 1 where TF_CONFIG names"):
        cluster_to_coordinate(2)


def test_addresses():
    assert split_address("host-0.example:2222") == ("host-0.example", 2222)
    assert split_address("[fd00::1]:2222") == ("fd00::1", 2222)


@pytest.mark.parametrize(
    ("addresses", "shares"),
    [
        (["a:1", "b:1"], [(0, 1), (0, 1)]),
        (["a:1", "b:1", "a:2", "b:2", "a:3"], [(0, 3), (0, 2), (1, 3), (1, 2), (2, 3)]),
        (["[fd00::1]:1", "[fd00::2]:1", "[fd00::1]:2"], [(0, 2), (0, 1), (1, 2)]),
        (["127.0.0.1:1", "127.0.0.1:2"], [(0, 2), (1, 2)]),  # local workers
        (["a:1", "aa:1", "10.0.0.1:1", "10.0.0.11:1"], [(0, 1)] * 4),
    ],
)
def test_processes_share_a_host_if_their_addresses_have_its_name(addresses, shares):
    clusters = [Cluster(tuple(addresses), tuple(addresses), index) for index in range(len(addresses))]
    assert [share_of_host(cluster) for cluster in clusters] == shares
    assert share_of_host(None) == (0, 1)


@pytest.mark.parametrize("key", ["", "a secret"])
def test_a_cluster_without_a_key_is_warned_of_once(monkeypatch, capsys, key):
    monkeypatch.setenv("TF_CONFIG", json.dumps(GOOD))
    monkeypatch.setenv("CHAR_LSTM_CLUSTER_KEY", key)
    cluster = cluster_to_coordinate(1)
    assert cluster is not None
    assert cluster.key == key
    warning = "warning: CHAR_LSTM_CLUSTER_KEY is not set: whoever reaches a:1 can take part\n"
    assert capsys.readouterr().err == ("" if key else warning)
