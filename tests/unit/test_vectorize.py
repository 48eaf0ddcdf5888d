"""The vectorize stage where its file does not fit into the machine."""

import shutil
import subprocess
import sys

import pytest
import yaml

from stages import vectorize
from stages.common.errors import StageError
from stages.text.windows import make_windows
from tests.support import ROOT, changed_params, make_text


def test_one_hot_tensors_that_do_not_fit_are_named_before_the_work(tmp_path):
    """299,000 windows of 1,000 characters out of 3,000: 897,897,000,000 bytes."""
    text = "".join(chr(0x4E00 + at % 3000) for at in range(300_000))
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/corpus.txt").write_text(text, encoding="utf-8")
    tree = changed_params(vectorize__maxlen=1000, vectorize__step=1, vectorize__one_hot=True)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    command = [sys.executable, "-m", "stages.vectorize"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: data/windows.npz would take 897.9 GB of disk and of memory; there are "
    )
    assert done.stderr.endswith(
        "; set vectorize.one_hot to false, or raise vectorize.step, or lower vectorize.maxlen\n"
    )
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "data/windows.npz").exists()


def test_a_disk_without_room_is_named(params, monkeypatch):
    """The limit is the size of the arrays, so one byte more is enough."""
    windows = make_windows(make_text(1000), params(vectorize__validation=0.2, vectorize__test=0.1).vectorize)
    parts = (windows.x, windows.y, windows.x_val, windows.y_val, windows.x_test, windows.y_test)
    size = sum(array.nbytes for array in parts)
    assert len(windows.x_val) > len(windows.x_test) > 0
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(vectorize.shutil, "disk_usage", lambda _: usage._replace(free=size))
    vectorize.require_room(windows, False)
    monkeypatch.setattr(vectorize.shutil, "disk_usage", lambda _: usage._replace(free=size - 1))
    with pytest.raises(StageError, match=r"would take 0\.0 GB of disk; there are 0\.0 GB free"):
        vectorize.require_room(windows, False)
