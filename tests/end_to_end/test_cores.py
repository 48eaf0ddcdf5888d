"""The same bytes on one core and on all."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import ROOT, forking_python

PINNED = """
import hashlib, json, os, sys
os.sched_setaffinity(0, set(list(os.sched_getaffinity(0))[: int(sys.argv[1])]))
from stages.training.device import set_up_tensorflow, usable_cores
set_up_tensorflow("cpu")
from stages.common.params import read_params
from stages.training.trainer import Trainer
from stages.text.windows import make_windows
from tests.support import make_text
read = read_params()
# compilation takes most of the time: of each microbatch (two would have one order only to sum in), of each
# position, of each size of a batch (only the first two models have a rest, 665 and 333 windows have none)
few = {"microbatches": 3}
results = [usable_cores()]
bfloat16 = {"precision": "mixed_bfloat16"}
other = {"layers": 2, "units": 32, "dropout": 0.3, "embedding": 16}
all_targets = {"targets": "all", "batch_size": 133}
carried = {"targets": "all", "batch_size": 37, "state": "carried", "ema_momentum": 0.9}
dropout = {"weight_dropout": 0.2, "embedding_dropout": 0.1, "variational_dropout": True}
for characters, model, train in (
    (10000, {}, {}),
    (10000, {}, bfloat16),
    (1998, other | {"cell": "gru"}, all_targets),
    (1002, other, carried | dropout | bfloat16),
):
    step = {"step": 3} if train.get("state") else {}
    update = {
        "model": read.model.model_copy(update=model),
        "train": read.train.model_copy(update=few | train),
        "vectorize": read.vectorize.model_copy(update={"maxlen": 3} | step),
    }
    params = read.model_copy(update=update)
    trainer = Trainer(params, make_windows(make_text(characters), params.vectorize), "cpu")
    metrics = trainer.epoch(0)
    weights = b"".join(w.tobytes() for w in trainer.model.get_weights())
    results += [metrics["loss"], hashlib.sha256(weights).hexdigest()]
print(json.dumps(results))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be pinned here")
def test_the_number_of_cores_does_not_change_a_byte():
    def run(cores):
        # on one core Python itself: a fork's packages were imported while it had all
        python = sys.executable if cores == 1 else forking_python()
        done = subprocess.run(
            [python, "-c", PINNED, str(cores)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    available = len(os.sched_getaffinity(0))
    one, many = run(1), run(available)
    assert (one[0], many[0]) == (1, available)
    assert one[1:] == many[1:]
    assert len(set(one[2::2])) == 4
