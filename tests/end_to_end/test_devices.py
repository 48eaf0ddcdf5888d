"""The GPU path, on as many CPU devices as are asked for: `tf.distribute` against one device."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from stages.distributed.strategy import Distribution
from tests.support import ROOT, free_ports, tf_config

EPOCHS = 5
TRAINING = """
import json, sys
devices, workers, index = map(int, sys.argv[1:])
from stages.training.device import set_up_tensorflow
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
set_up_tensorflow("cpu")
from stages.distributed.strategy import Distribution, distribute
from stages.common.params import read_params
from stages.training.trainer import Trainer
from stages.text.windows import make_windows
from tests.support import make_text

if devices > 1:  # what distribute("gpu", 1, 0) gives where there are as many GPUs
    distribution = Distribution(tf.distribute.MirroredStrategy([f"/cpu:{n}" for n in range(devices)]))
else:
    distribution = distribute("gpu", workers, index)
params = read_params()
train = params.train.model_copy(update={"batch_size": 100, "preview": 60})
model = params.model.model_copy(update={"units": 24})
params = params.model_copy(update={"train": train, "model": model})
trainer = Trainer(params, make_windows(make_text(2000), params.vectorize), "gpu", distribution)
losses = [trainer.epoch(epoch)["loss"] for epoch in range(2)]
checkpoint = trainer.checkpoint("", {})  # a resumed run goes on alike
trainer.restore(checkpoint)
losses += [trainer.epoch(epoch)["loss"] for epoch in range(2, EPOCHS)]
weights = [weight.tolist() for weight in trainer.model.get_weights()]
print(json.dumps({"losses": losses, "weights": weights, "preview": trainer.preview(0)}))
""".replace("EPOCHS", str(EPOCHS))


def trained(devices: int = 1, workers: int = 1) -> list[dict]:
    """Losses, weights and preview of each process."""
    with free_ports(workers) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", TRAINING, str(devices), str(workers), str(index)],
                cwd=ROOT,
                env={**os.environ, "TF_CONFIG": tf_config(addresses, index)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for index in range(workers)
        ]
        return [json.loads(process.communicate(timeout=120)[0]) for process in processes]


@pytest.fixture(scope="module")
def alone() -> dict:
    """One device of one process."""
    (result,) = trained()
    return result


@pytest.mark.parametrize("setup", [{"devices": 3}, {"workers": 2}], ids=str)
def test_devices_and_processes_learn_what_one_learns(alone, setup):
    for result in trained(**setup):
        np.testing.assert_allclose(result["losses"], alone["losses"], rtol=0, atol=1e-5)
        for ours, theirs in zip(result["weights"], alone["weights"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
        assert result["preview"] == alone["preview"]


@pytest.mark.parametrize(("parts", "workers"), [(4, 1), (4, 2), (4, 3), (4, 4), (64, 5)])
def test_workers_share_out_all_parts(parts, workers):
    shares = [list(Distribution(workers=workers, index=n).own(parts)) for n in range(workers)]
    assert list(itertools.chain(*shares)) == list(range(parts))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
