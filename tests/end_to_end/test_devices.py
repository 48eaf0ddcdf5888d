"""The GPU path, on as many CPU devices as are asked for: `tf.distribute` against one device."""

import contextlib
import itertools
import json
import os
import subprocess
from subprocess import CompletedProcess

import numpy as np
import pytest

from stages.distributed.strategy import Distribution
from tests.support import (
    EVERYTHING,
    ROOT,
    changed_params,
    forking_python,
    free_ports,
    tf_config,
    trained,
    without_training,
)

EPOCHS = 3
# every step is clipped
CLIPPED: dict[str, float] = {"vectorize__maxlen": 12, "model__units": 24}
CLIPPED |= {"train__batch_size": 100, "train__preview": 60, "train__clip_norm": 0.05}
# two layers, dropout, an embedding, adam with a schedule, a validation split, targets: all
CLIPPED_TOO = EVERYTHING | {"train__batch_size": 100, "train__clip_norm": 0.05}
TRAINING = """
import json, sys
import numpy as np
devices, workers, index, microbatches = map(int, sys.argv[1:5])
from stages.training.device import set_up_tensorflow
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
set_up_tensorflow("cpu")
from stages.distributed.strategy import Distribution, distribute
from stages.common.params import Params
from stages.training import device_loop
from stages.training.steps import keras_microbatch
from stages.training.trainer import Trainer
from stages.text.windows import make_windows
from tests.support import make_text

device_loop.READS = 2  # so that the compiled function takes several steps

if devices > 1:  # what distribute("gpu", 1, 0) gives where there are as many GPUs
    distribution = Distribution(tf.distribute.MirroredStrategy([f"/cpu:{n}" for n in range(devices)]))
else:
    distribution = distribute("gpu", workers, index)
params = Params.model_validate_json(sys.argv[5])
windows = make_windows(make_text(2000), params.vectorize)
trainer = Trainer(params, windows, "cpu" if microbatches else "gpu", distribution)
def norm():  # of the gradients of a batch
    batch, share = params.train.batch_size, tf.fill([params.train.batch_size], 1 / params.train.batch_size)
    x, y = (tf.cast(array[:batch], tf.int32) for array in (windows.x, windows.y))
    _, gradients = keras_microbatch(trainer.model)(x, y, share, tf.constant([1, 2]))
    return float(tf.linalg.global_norm(gradients))

alone = devices == workers == 1
norms = [norm()] if alone else []
places = []
if devices > 1:
    rows = trainer.loop._on_devices(np.zeros((1, trainer.loop._all_rows)), 0)
    places = [value.device[-5:] for value in rows.values]
repeats = trainer.repeats_first_steps()  # and leaves the state as it is
metrics = [trainer.epoch(0)]
checkpoint = trainer.checkpoint("", {})  # a resumed run goes on alike
trainer.restore(checkpoint)
metrics += [trainer.epoch(epoch) for epoch in range(1, EPOCHS)]
weights = [weight.tolist() for weight in trainer.model.get_weights()]
norms += [norm()] if alone else []
names = "metrics", "weights", "preview", "repeats", "norms", "places"
print(json.dumps(dict(zip(names, (metrics, weights, trainer.preview(0), repeats, norms, places)))))
""".replace("EPOCHS", str(EPOCHS))


def trained_on(settings: dict, devices: int = 1, workers: int = 1, microbatches: int = 0) -> list[dict]:
    """Metrics, weights and preview of each process, on the GPU path unless there are microbatches."""
    command = [forking_python(), "-c", TRAINING]
    params = json.dumps(changed_params(**settings | {"train__microbatches": microbatches or 1}))
    with free_ports(workers) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        processes = [
            subprocess.Popen(
                [*command, *map(str, (devices, workers, index, microbatches)), params],
                cwd=ROOT,
                env={**os.environ, "TF_CONFIG": tf_config(addresses, index)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for index in range(workers)
        ]
        return [json.loads(process.communicate(timeout=120)[0]) for process in processes]


@pytest.mark.parametrize(
    ("settings", "setup"),
    [
        (CLIPPED, {"workers": 2}),
        (CLIPPED_TOO, {"devices": 3}),
    ],
    ids=["article-workers", "everything-devices"],
)
def test_devices_and_processes_learn_what_one_learns(settings, setup):
    """Dropout draws anew for each part of a batch: there, one device computes as many parts."""
    parts = sum(setup.values()) if settings.get("model__dropout") else 0
    (alone,) = trained_on(settings, microbatches=parts)
    assert min(alone["norms"]) > settings["train__clip_norm"]  # so steps are really clipped
    for result in trained_on(settings, **setup):
        for ours, expected in zip(result["metrics"], alone["metrics"], strict=True):
            assert ours == pytest.approx(expected, rel=0, abs=1e-5)
        for ours, theirs in zip(result["weights"], alone["weights"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
        assert result["preview"] == alone["preview"]
        assert result["repeats"]
        assert result["places"] == [f"CPU:{n}" for n in range(setup.get("devices", 0))]
    assert ("val_loss" in alone["metrics"][0]) == ("vectorize__validation" in settings)


ON_THE_GPU_PATH = """
import importlib, sys
_, stage, *drift = sys.argv
sys.argv = [stage]
import stages.training.device
from stages.training import loop, trainer, worker_loop
import tensorflow as tf
def on_a_cpu(device, cores, precision, share):
    print("set up:", device, precision, share)
    return stages.training.device.set_up_tensorflow("cpu") and "gpu"

loop.set_up_tensorflow = worker_loop.set_up_tensorflow = on_a_cpu
if drift:
    plain = trainer.keras_microbatch
    def drifting(model):
        calls = tf.Variable(0.0)
        def gradients_of(*batch):
            loss, gradients = plain(model)(*batch)
            return loss, [gradient * (1 + 1e-5 * calls.assign_add(1)) for gradient in gradients]
        return gradients_of
    trainer.keras_microbatch = drifting
importlib.import_module(f"stages.{stage}").main()
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_does_not_repeat_its_first_steps_is_marked(small, workers):
    """The stages themselves, with a CPU in place of each GPU; then with gradients that grow."""
    without_training(small)

    def train(*drift: str, computes: bool = True) -> CompletedProcess[str]:
        with free_ports(workers) as ports, contextlib.ExitStack() as at_end:
            addresses = [f"127.0.0.1:{port}" for port in ports]
            config = [{"TF_CONFIG": tf_config(addresses, n)} if workers > 1 else {} for n in range(workers)]
            script = "python", "-c", ON_THE_GPU_PATH
            others = [small.start(*script, "worker", *drift, **each) for each in config[1:]]
            for each in others:
                at_end.callback(each.kill)
            done = small.run(*script, "train", *drift, **config[0])
            for each in others:
                output, errors = each.communicate(timeout=60)
                assert each.returncode == 0, errors
                assert ("set up: gpu float32 (1, 2)\n" in output) == computes
        assert f"set up: auto float32 (0, {workers})\n" in done.stdout
        return done

    small.set_params(train__epochs=3)
    done = train()
    assert done.stdout.count("without cuDNN: Keras sees no GPU\n") == 1
    assert json.loads(small.read("metrics/train/device.json"))["reproducible"] is True
    before = trained(small.root)
    assert "3 of 3 epochs were computed before" in train(computes=False).stdout
    assert trained(small.root) == before
    (store,) = (small.root / ".dvc/cache/checkpoints").iterdir()
    max(store.iterdir()).unlink()
    assert "2 of 3 epochs were computed before" in train().stdout
    assert trained(small.root) == before

    small.set_params(train__epochs=4)  # or several processes would have nothing left to compute
    done = train("drift")
    assert "computed before" not in done.stdout
    assert "warning: the first steps, done twice, gave different bytes: this run is" in done.stderr
    assert json.loads(small.read("metrics/train/device.json"))["reproducible"] is False
    assert len(list(store.parent.iterdir())) == 2
    assert "4 of 4 epochs were computed before" in train("drift").stdout


@pytest.mark.parametrize(("parts", "workers"), [(4, 1), (4, 2), (4, 3), (4, 4), (64, 5)])
def test_workers_share_out_all_parts(parts, workers):
    shares = [list(Distribution(workers=workers, index=n).own(parts)) for n in range(workers)]
    assert list(itertools.chain(*shares)) == list(range(parts))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
