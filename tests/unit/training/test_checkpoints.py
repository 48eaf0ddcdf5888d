"""Checkpoints: complete or not used, and never those of another run."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest

from stages.common.files import write_atomically
from stages.training.checkpoints import (
    Checkpoint,
    DamagedCheckpoint,
    checkpoint_files,
    from_bytes,
    to_bytes,
)
from stages.training.store import CheckpointStore


def checkpoint(epoch=0, fingerprint="f" * 64, **metrics):
    rng = np.random.default_rng(epoch)
    weights = [rng.normal(size=(3, 4)).astype("f4"), rng.normal(size=5).astype("f4")]
    optimizer = [np.array(epoch), np.array(0.01, "f4"), weights[0] * 2]
    values = {"loss": 1.5, **metrics}
    return Checkpoint(epoch, fingerprint, {"units": 4}, "v" * 64, values, weights, optimizer)


def test_round_trip_and_equal_bytes():
    kept = checkpoint(3, val_loss=0.1)
    content = to_bytes(kept)
    back = from_bytes(content)
    assert (back.epoch, back.fingerprint, back.model, back.vocabulary, back.metrics) == (
        3,
        "f" * 64,
        {"units": 4},
        "v" * 64,
        {"loss": 1.5, "val_loss": 0.1},
    )
    for ours, theirs in zip(back.weights + back.optimizer, kept.weights + kept.optimizer, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert to_bytes(back) == content == to_bytes(checkpoint(3, val_loss=0.1))


def test_numpy_alone_opens_it():
    kept = checkpoint()
    with np.load(io.BytesIO(to_bytes(kept)), allow_pickle=False) as file:
        np.testing.assert_array_equal(file["weights_000"], kept.weights[0])


def test_every_flipped_bit_and_every_cut_is_noticed():
    content = to_bytes(checkpoint())
    for position in range(0, len(content), 7):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        with pytest.raises(DamagedCheckpoint):
            from_bytes(bytes(changed))
    for length in [0, 1, 65, 66, 67, *range(0, len(content), 50), len(content) - 1]:
        with pytest.raises(DamagedCheckpoint):
            from_bytes(content[:length])


def test_valid_epochs_end_at_a_missing_damaged_or_foreign_one(tmp_path, capfd):
    store = CheckpointStore(tmp_path, "f" * 64)
    assert store.valid_epochs(5) == []
    for epoch in range(4):
        store.write(checkpoint(epoch))
    assert [len(store.valid_epochs(epochs)) for epochs in (2, 4, 9)] == [2, 4, 4]
    assert capfd.readouterr().err == ""

    third = store.folder / "epoch-002.npz"
    whole = third.read_bytes()
    third.write_bytes(whole[:-1])
    assert len(store.valid_epochs(9)) == 2
    assert f"warning: checkpoint {third} is not used: its checksum" in capfd.readouterr().err
    for foreign in (checkpoint(2, fingerprint="0" * 64), checkpoint(3)):
        third.write_bytes(to_bytes(foreign))
        assert len(store.valid_epochs(9)) == 2
        assert f"warning: checkpoint {third} is not used: it belongs to another run" in capfd.readouterr().err
    third.write_bytes(whole)
    assert len(store.valid_epochs(9)) == 4
    third.unlink()
    assert len(store.valid_epochs(9)) == 2


def test_other_fingerprints_do_not_meet(tmp_path):
    CheckpointStore(tmp_path, "a" * 64).write(checkpoint(fingerprint="a" * 64))
    assert len(CheckpointStore(tmp_path, "b" * 64).valid_epochs(1)) == 0
    assert len(CheckpointStore(tmp_path, "a" * 64).valid_epochs(1)) == 1


def test_only_whole_checkpoints_of_the_same_run_are_adopted(tmp_path, capfd):
    """As `dvc.lock` lists them, whichever run DVC's cache has them of."""
    store = CheckpointStore(tmp_path / "store", "a" * 64)
    found = tmp_path / "cache"
    found.mkdir()
    files = []
    for epoch, fingerprint in enumerate("aaab"):
        path = found / str(epoch)
        path.write_bytes(to_bytes(checkpoint(epoch, fingerprint=fingerprint * 64)))
        files.append((f"epoch-{epoch:03d}.npz", path))
    (found / "1").write_bytes((found / "1").read_bytes()[:-1])
    store.adopt([("epoch-009.npz", found / "missing"), *files])
    assert {path.name for path in store.folder.iterdir()} == {"epoch-000.npz", "epoch-002.npz"}
    assert store.read(2).fingerprint == "a" * 64
    assert f"warning: checkpoint epoch-001.npz in {found / '1'} is not used" in capfd.readouterr().err

    other = CheckpointStore(tmp_path / "store", "b" * 64)
    other.adopt(files[:1] + files[2:3])
    assert not other.folder.exists()


def test_epochs_are_in_the_order_of_their_numbers(tmp_path):
    for number in (0, 2, 10, 999, 1000, 1001):
        (tmp_path / f"epoch-{number:03d}.npz").touch()
    for other in ("epoch-001 (copy).npz", ".epoch-003.npz.99.part", "epoch-x.npz", "epoch-4.npz"):
        (tmp_path / other).touch()
    found = checkpoint_files(tmp_path)
    assert list(found) == [0, 2, 10, 999, 1000, 1001]
    assert found[2] == tmp_path / "epoch-002.npz"


def test_a_write_is_atomic(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"new, but")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_removes_what_a_killed_one_left(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (
        f".losses.tsv.{ended.pid}.part",
        f".losses.tsv.{os.getppid()}.part",
        f".other.{ended.pid}.part",
    ):
        (tmp_path / name).touch()
    write_atomically(tmp_path / "losses.tsv", lambda file: file.write(b"new"))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"losses.tsv", f".losses.tsv.{os.getppid()}.part", f".other.{ended.pid}.part"}
