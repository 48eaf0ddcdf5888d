"""The loop of steps of a GPU, on a CPU: the bytes of single steps, and a GPU kernel for each operation."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from stages.common.errors import StageError
from stages.text.windows import make_windows
from stages.training import host_loop
from stages.training.device_loop import READS, DeviceLoop
from stages.training.trainer import Trainer
from tests.support import EVERYTHING, make_text

needs_cuda_build = pytest.mark.skipif(
    not tf.test.is_built_with_cuda(), reason="this TensorFlow is built without CUDA"
)
ARTICLE = {"vectorize__maxlen": 9, "model__units": 12, "train__batch_size": 10, "train__preview": 0}


@pytest.fixture
def trainer_on(params):
    def make(device, text=1500, **changes):
        settings = params(**ARTICLE | changes, train__microbatches=1)
        return Trainer(settings, make_windows(make_text(text), settings.vectorize), device)

    return make


def state_of(trainer):
    checkpoint = trainer.checkpoint("", {})
    return [array.tobytes() for array in (*checkpoint.weights, *checkpoint.optimizer)]


@pytest.mark.parametrize("changes", [{"text": 5_000}, EVERYTHING], ids=["article", "everything"])
def test_losses_and_weights_are_those_of_single_steps_to_the_bit(trainer_on, monkeypatch, changes):
    monkeypatch.setattr(host_loop, "applies_to", lambda model: False)  # not the fused step, whose sums differ
    ours, plain = trainer_on("gpu", **changes), trainer_on("cpu", **changes)
    for epoch in range(2):
        assert ours.epoch(epoch) == plain.epoch(epoch)
        assert state_of(ours) == state_of(plain)
    assert ours.loop.cudnn_layers == 0  # there is no GPU
    steps = plain.loop.begun
    assert 2 * 2 <= ours.loop.begun == ours.loop.done <= 2 * READS
    if "text" in changes:
        assert steps > 2 * READS  # so a run of the compiled function has several steps
        assert len(ours.windows.x) % ours.batch_size  # and the last batch is smaller


def graphs_with_cudnn(trainer, monkeypatch):
    """The operations that the loop and the validation run on a GPU with cuDNN, traced but not run."""
    monkeypatch.setattr(sys.modules["keras.src.backend.tensorflow.rnn"], "cudnn_ok", lambda *_, **__: True)
    chunk = next(trainer.loop._chunks(*trainer._plan(0)))
    rows = trainer.validation_rows
    inputs = [np.zeros((rows, 9), np.int32), np.zeros(rows, np.int32), np.zeros(rows, np.float32)]
    functions = [trainer.loop.run.get_concrete_function(*chunk)]
    if rows:
        functions.append(trainer._validation_step.get_concrete_function(*inputs))
    graphs = [function.graph.as_graph_def() for function in functions]
    return [
        node
        for graph in graphs
        for nodes in (graph.node, *(function.node_def for function in graph.library.function))
        for node in nodes
    ]


def has_gpu_kernel(node) -> bool:
    """Whether this build of TensorFlow has a GPU kernel for an operation with these types."""

    def fits(kernel) -> bool:
        for constraint in kernel.constraint:
            value = node.attr[constraint.name]
            types = value.list.type if value.WhichOneof("value") == "list" else [value.type]
            if not set(types) <= set(constraint.allowed_values.list.type):
                return False
        return kernel.device_type in ("GPU", "DEFAULT")

    return any(map(fits, kernels.get_registered_kernels_for_op(node.op).kernel))


@needs_cuda_build
@pytest.mark.parametrize(
    ("changes", "cudnn_layers"),
    [
        (EVERYTHING, 2),
        ({"model__cell": "gru", "train__precision": "mixed_bfloat16", "model__dropout": 0.2}, 1),
        ({"model__cell": "rnn"}, 0),
        ({"train__use_cudnn": False}, 0),
    ],
    ids=["everything", "gru-bfloat16", "rnn", "without-cudnn"],
)
def test_each_operation_has_a_gpu_kernel(trainer_on, monkeypatch, changes, cudnn_layers):
    """Otherwise TensorFlow would compute it on the host, and each step would wait for the copies."""
    trainer = trainer_on("gpu", **changes)
    nodes = graphs_with_cudnn(trainer, monkeypatch)
    assert [node.op for node in nodes if not has_gpu_kernel(node)] == []
    assert trainer.loop.cudnn_layers == cudnn_layers
    assert not any(node.attr["_XlaMustCompile"].b for node in nodes)
    assert any(node.op == "CudnnRNNV3" for node in nodes) == bool(cudnn_layers)


@needs_cuda_build
def test_the_check_of_kernels_finds_one_that_is_missing():
    @tf.function(autograph=False)
    def look_up(x, index):
        return tf.gather(x, index)

    graph = look_up.get_concrete_function(np.zeros((4, 2), np.uint8), np.zeros(2, np.int64)).graph
    assert [node.op for node in graph.as_graph_def().node if not has_gpu_kernel(node)] == ["GatherV2"]


def test_the_first_steps_are_taken_twice_and_undone(trainer_on):
    trainer = trainer_on("gpu", **EVERYTHING)
    trainer.epoch(0)
    before = state_of(trainer)
    assert trainer.repeats_first_steps()
    assert state_of(trainer) == before
    other = trainer_on("gpu", **EVERYTHING)
    other.epoch(0)
    assert trainer.epoch(1) == other.epoch(1)


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
    with pytest.raises(StageError, match=r"cannot compute the first step: .*; try train\.use_cudnn: false"):
        trainer.repeats_first_steps()


def test_mixed_bfloat16_trains_in_bfloat16_and_validates_in_float32(trainer_on):
    changes = {"vectorize__validation": 0.2, "train__batch_size": 64}
    ours = trainer_on("gpu", train__precision="mixed_bfloat16", **changes)
    full = trainer_on("gpu", **changes)
    assert [layer.compute_dtype for layer in ours.model.layers] == ["bfloat16", "float32"]
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
