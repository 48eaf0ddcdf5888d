"""The loop of steps of a GPU, on a CPU: the bytes of single steps, and a GPU kernel for each operation."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from stages.common.errors import StageError
from stages.text.windows import make_windows
from stages.training.device_loop import READS, DeviceLoop
from stages.training.loop import compute_epoch, repeats_first_steps
from stages.training.steps import train_step
from stages.training.trainer import Trainer
from tests.numeric.gradient_support import keras_gradients
from tests.numeric.graph_support import all_operations, gpu_kernel, is_compiled_by_xla, ways_to_the_host
from tests.support import EVERYTHING, make_text

needs_cuda_build = pytest.mark.skipif(
    not tf.test.is_built_with_cuda(), reason="this TensorFlow is built without CUDA"
)
ARTICLE = {"vectorize__maxlen": 6, "model__units": 12, "train__batch_size": 10, "train__preview": 0}


@pytest.fixture
def trainer_on(params):
    def make(device, text=1500, **changes):
        settings = params(**ARTICLE | changes | {"train__microbatches": 1})
        return Trainer(settings, make_windows(make_text(text), settings.vectorize), device)

    return make


def state_of(trainer):
    checkpoint = trainer.checkpoint("", {})
    return [array.tobytes() for array in (*checkpoint.weights, *checkpoint.optimizer)]


@pytest.mark.parametrize("changes", [{"text": 5_000}, EVERYTHING], ids=["article", "everything"])
def test_losses_and_weights_are_those_of_single_steps_to_the_bit(trainer_on, changes):
    ours, plain = trainer_on("gpu", **changes), trainer_on("cpu", **changes)
    # not the fused steps, whose sums differ
    plain.loop.step = train_step(keras_gradients(plain.model), plain.model, plain.plan.batch_size)
    for epoch in range(2):
        assert ours.epoch(epoch) == plain.epoch(epoch)
        assert state_of(ours) == state_of(plain)
        if epoch == 0:  # it is undone
            assert ours.repeats_first_steps()
            assert state_of(ours) == state_of(plain)
    assert not ours.loop.uses_cudnn  # there is no GPU
    steps = plain.loop.begun
    assert 2 * 2 <= ours.loop.begun == ours.loop.done <= 2 * READS + 2
    if "text" in changes:
        assert steps > 2 * READS  # so a run of the compiled function has several steps
        assert len(ours.windows.x) % ours.plan.batch_size  # and the last batch is smaller


def operations_with_cudnn(trainer, monkeypatch):
    """The operations that the loop and the validation run on a GPU with cuDNN, traced but not run."""
    monkeypatch.setattr(sys.modules["keras.src.backend.tensorflow.rnn"], "cudnn_ok", lambda *_, **__: True)
    x, y, share, *of_steps = next(trainer.loop._chunks(*trainer.plan(0)))
    functions = [trainer.loop.run.get_concrete_function(x, y, share, *map(tf.constant, of_steps))]
    if rows := trainer._validate.rows:
        maxlen = trainer.windows.x.shape[1]
        inputs = [np.zeros((rows, maxlen), np.int32), np.zeros(rows, np.int32), np.zeros(rows, np.float32)]
        functions.append(trainer._validate.step.get_concrete_function(*inputs))
    return [operation for function in functions for operation in all_operations(function.graph)]


@needs_cuda_build
@pytest.mark.parametrize(
    ("changes", "cudnn"),
    [
        (EVERYTHING, True),
        ({"model__cell": "gru", "train__precision": "mixed_bfloat16", "model__dropout": 0.2}, True),
        ({"model__cell": "rnn"}, False),
        ({"train__use_cudnn": False}, False),
    ],
    ids=["everything", "gru-bfloat16", "rnn", "without-cudnn"],
)
def test_each_operation_is_a_gpus_and_none_waits_for_the_host(trainer_on, monkeypatch, changes, cudnn):
    """Without a GPU kernel TensorFlow computes on the host, and each step waits for it."""
    trainer = trainer_on("gpu", **changes)
    operations = operations_with_cudnn(trainer, monkeypatch)
    assert [each.type for each in operations if not gpu_kernel(each)] == []
    if cudnn:  # elsewhere Keras's own loop over time counts its steps on the host
        assert ways_to_the_host(operations) == []
    assert not any(is_compiled_by_xla(each) for each in operations)
    assert any(each.type == "CudnnRNNV3" for each in operations) == trainer.loop.uses_cudnn == cudnn


@needs_cuda_build
def test_the_checks_of_operations_find_what_is_wrong():
    called = tf.function(tf.identity, autograph=False, experimental_attributes={"_noinline": True})
    by_xla = tf.function(tf.identity, autograph=False, jit_compile=True)

    @tf.function(autograph=False)
    def look_up(x, index, characters):
        as_int32 = tf.cast(characters, tf.int32)
        return tf.gather(x, index), as_int32[:, 1:], called(as_int32), by_xla(x)

    shapes = np.zeros((4, 2), np.uint8), np.zeros(2, np.int64), np.zeros((2, 3), np.uint8)
    operations = list(all_operations(look_up.get_concrete_function(*shapes).graph))
    assert [each.type for each in operations if not gpu_kernel(each)] == ["GatherV2"]
    assert ways_to_the_host(operations) == ["Cast -> StridedSlice", "Cast -> PartitionedCall"]
    assert any(is_compiled_by_xla(each) for each in operations)


def test_steps_that_differ_are_noticed(trainer_on):
    trainer = trainer_on("gpu")
    gradients_of, calls = trainer.loop._gradients_of, tf.Variable(0.0)

    def drifting(*batch):
        loss, gradients = gradients_of(*batch)
        return loss, [gradient * (1 + 1e-6 * calls.assign_add(1)) for gradient in gradients]

    trainer.loop._gradients_of = drifting
    before = state_of(trainer)
    assert not trainer.repeats_first_steps()
    assert state_of(trainer) == before


def test_a_step_that_the_device_cannot_compute_is_an_error(trainer_on):
    trainer = trainer_on("gpu")
    gradients_of = trainer.loop._gradients_of

    def failing(*batch):
        with tf.control_dependencies([tf.debugging.Assert(False, ["CUDNN_STATUS_NOT_SUPPORTED"])]):
            return gradients_of(*map(tf.identity, batch))

    trainer.loop._gradients_of = failing
    with pytest.raises(
        StageError, match=r"the GPU failed in epoch 0: .*CUDNN_STATUS_NOT_SUPPORTED.*; finished"
    ):
        compute_epoch(trainer, 0)
    with pytest.raises(StageError, match=r"first step: .*CUDNN_STATUS_NOT_SUPPORTED.*; try a smaller"):
        repeats_first_steps(trainer)


def test_mixed_bfloat16_trains_in_bfloat16_and_validates_in_float32(trainer_on):
    changes = {"vectorize__validation": 0.2, "train__batch_size": 64}
    ours = trainer_on("gpu", train__precision="mixed_bfloat16", **changes)
    full = trainer_on("gpu", **changes)
    assert [layer.compute_dtype for layer in ours.model.layers] == ["bfloat16", "float32"]
    without = trainer_on("gpu", train__precision="mixed_bfloat16", train__use_cudnn=False)
    assert [model.layers[0].use_cudnn for model in (without.model, without._evaluated)] == [False, False]
    metrics, expected = ours.epoch(0), full.epoch(0)
    assert metrics["loss"] == pytest.approx(expected["loss"], abs=0.02)
    assert metrics["loss"] != expected["loss"]
    assert {weight.dtype for weight in ours.model.get_weights()} == {np.dtype(np.float32)}
    full.model.set_weights(ours.model.get_weights())
    windows, size = ours.windows, len(ours.windows.vocabulary)
    probabilities = full.model.predict_on_batch(np.eye(size, dtype=np.float32)[windows.x_val])
    losses = -np.log(probabilities[np.arange(len(windows.y_val)), windows.y_val].astype(np.float64))
    assert metrics["val_loss"] == pytest.approx(losses.mean(), abs=1e-5)


def test_a_gpu_starts_with_the_weights_of_a_cpu(trainer_on):
    ours, plain = trainer_on("gpu"), trainer_on("cpu")
    assert isinstance(ours.loop, DeviceLoop)
    assert state_of(ours) == state_of(plain)
