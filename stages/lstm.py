r"""The fast path: one optimizer step of the article's model on a CPU, written out by hand.

It computes what Keras's own layer and optimizer compute, with the same variables, and is used where
it applies: `Input -> LSTM -> Dense(softmax)` with standard activations, zero initial state and the last
output only. Four things make it faster than the stock layer:

1. The input product x_t W of a one-hot x_t is a row of W; it is looked up instead of multiplied.
2. The steps are unrolled, and what lies between two matrix products is one XLA kernel each way.
3. The gradient with respect to W and U is a product per time step, outside the recurrence.
4. The batch is cut into `streams` parts that do not meet before their gradients are summed, and every
   operation runs on one thread. So parts run side by side on as many cores as there are, while
   what is added to what, and hence every bit, is the same on any number of cores.

Forward (Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; Keras's gate order
i, f, g, o), for windows x_1..x_T, h_0 = c_0 = 0, all products with one row per window:

    z_t = x_t W + b + h_{t-1} U,   i, f, o = sigmoid(z_i, z_f, z_o),   g = tanh(z_g)
    c_t = f * c_{t-1} + i * g,     h_t = o * tanh(c_t)
    logits = h_T D + d,            loss = -sum_n w_n log softmax(logits)_n[y_n] / sum_n w_n

Backward, with dA for the loss's derivative by A, from sigmoid' = s(1 - s) and tanh' = 1 - tanh^2:

    dlogits = (softmax(logits) - onehot(y)) w / sum w
    dD = h_T' dlogits,  dd = sum dlogits,  dh_T = dlogits D',  dc_T = 0
    for t = T..1:   dc_t += dh_t * o * (1 - tanh(c_t)^2)
                    dz_t  = [dc_t g i(1-i),  dc_t c_{t-1} f(1-f),  dc_t i(1-g^2),  dh_t tanh(c_t) o(1-o)]
                    dc_{t-1} = dc_t * f,     dh_{t-1} = dz_t U'
    dU = sum_t h_{t-1}' dz_t,   dW = sum_t onehot(x_t)' dz_t,   db = sum_t,n dz_t = sum of dW's rows

Memory: forward keeps 6H floats for each window and step (i f g o, c, h; tanh c is computed again),
backward adds 4H (dz) that live until their products are done: at most 4 * 10 * H * maxlen * batch bytes,
210 MB at the article's H = 128, maxlen = 40, batch = 1,024.

With `products` of bfloat16 (`train.precision: mixed_bfloat16`) the recurrence's matrix products read and
write numbers of 8 bits' precision, which hardware made for it does several times faster. c, dc, the
element-wise part, the loss, the sums over time and streams, the weights and the optimizer stay in
float32 (Micikevicius et al. 2018). Gates, h and dz are kept in bfloat16: most of the memory halves.
"""

from collections.abc import Callable
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

Step = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
Losses = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
Part = tuple[tf.Tensor, list[tf.Tensor]]  # loss and gradients of a stream


class Exchange(Protocol):
    """How workers that share out the streams get each other's; see `stages/distribute.py`."""

    own: range

    def __call__(self, parts: list[Part]) -> list[Part]:
        """Everybody's parts in the order of the streams, from those of `own`."""


def applies_to(model: keras.Model) -> bool:
    """Whether `fused_step` computes this model: the article's layers with their standard settings."""
    layers = model.layers
    if [type(layer) for layer in layers] != [keras.layers.LSTM, keras.layers.Dense]:
        return False
    lstm, dense = (layer.get_config() for layer in layers)
    plain = {
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "use_bias": True,
        "return_sequences": False,
        "return_state": False,
        "go_backwards": False,
        "stateful": False,
        "dropout": 0.0,
        "recurrent_dropout": 0.0,
        "kernel_regularizer": None,
        "recurrent_regularizer": None,
        "bias_regularizer": None,
        "activity_regularizer": None,
        "kernel_constraint": None,
        "recurrent_constraint": None,
        "bias_constraint": None,
    }
    return (
        all(lstm.get(key) == value for key, value in plain.items())
        and dense["activation"] == "softmax"
        and dense["use_bias"]
        and all(weight.dtype == "float32" for weight in model.trainable_variables)
    )


@tf.function(jit_compile=True)
def _cell_forward(wb, x, zh, c):
    """One step of the recurrence: wb (V, 4H) is W + b, x (n,) indices, zh (n, 4H) is h U, c (n, H).

    sigmoid(z) = tanh(z / 2) / 2 + 1/2 makes one operation of the four gates. Returns the gates (n, 4H)
    and h (n, H) in the type of zh, and c.
    """
    one_gate = np.ones(c.shape[1])
    scale = tf.constant(np.concatenate([one_gate / 2, one_gate / 2, one_gate, one_gate / 2]), c.dtype)
    gates = tf.tanh((tf.gather(wb, x) + tf.cast(zh, c.dtype)) * scale) * scale + (1 - scale)
    i, f, g, o = tf.split(gates, 4, axis=1)
    c = f * c + i * g
    return tf.cast(gates, zh.dtype), c, tf.cast(o * tf.tanh(c), zh.dtype)


@tf.function(jit_compile=True)
def _cell_backward(gates, c_before, c, dh, dc):
    """The same step backward: gates (n, 4H), the rest (n, H); returns dz (n, 4H) and dc before it."""
    i, f, g, o = tf.split(tf.cast(gates, c.dtype), 4, axis=1)
    dh, tanh_c = tf.cast(dh, c.dtype), tf.tanh(c)
    dc += dh * o * (1 - tanh_c * tanh_c)
    dz = [
        dc * g * i * (1 - i),
        dc * c_before * f * (1 - f),
        dc * i * (1 - g * g),
        dh * tanh_c * o * (1 - o),
    ]
    return tf.cast(tf.reshape(tf.stack(dz, axis=1), gates.shape), gates.dtype), dc * f


@tf.function(jit_compile=True)
def _sum_in_order(*parts):
    """The sum of equal shapes, first to last, in float32 or wider.

    Not `tf.add_n`: its kernel starts with whichever input's buffer happens to be free, so once in some
    ten thousand steps, under load, it adds in another order. Nor `+` outside XLA, which TensorFlow's
    graph optimizer turns into the same kernel.
    """
    widest = tf.float64 if parts[0].dtype == tf.float64 else tf.float32
    total = tf.cast(parts[0], widest)
    for part in parts[1:]:
        total += tf.cast(part, widest)
    return total


def loss_and_gradients(weights, x, y, share, products=None):
    """Loss and gradients of one stream.

    weights: W (V, 4H), U (H, 4H), b (4H,), D (H, V), d (V,), in Keras's order; x (n, maxlen) and y (n,)
    int32 indices; share (n,): each window's weight over the whole batch's sum of weights; products: the
    type of the recurrence's matrix products and of what is kept for them, None for that of the weights.
    Returns the stream's part of the loss, a scalar, and of the five gradients, in the same order.
    """
    w, u, b, dense, dense_bias = weights
    n, maxlen = x.shape
    size, units = w.shape[0], u.shape[0]
    full, products = u.dtype, products or u.dtype
    u = tf.cast(u, products)
    wb, u_transposed = w + b, tf.transpose(u)
    x = tf.unstack(x, axis=1)
    h, c = tf.zeros((n, units), products), tf.zeros((n, units), full)
    kept = []
    for t in range(maxlen):
        gates, c_after, h_after = _cell_forward(wb, x[t], tf.matmul(h, u), c)
        kept.append((gates, c, c_after, h))
        c, h = c_after, h_after

    h = tf.cast(h, full)
    logits = tf.matmul(h, dense) + dense_bias
    loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits) * share)
    d_logits = (tf.nn.softmax(logits) - tf.one_hot(y, size, dtype=full)) * share[:, None]
    d_dense = tf.matmul(h, d_logits, transpose_a=True)
    dh, dc = tf.matmul(d_logits, dense, transpose_b=True), tf.zeros((n, units), full)

    dw, du = [], []
    for t in reversed(range(maxlen)):
        gates, c_before, c_after, h_before = kept[t]
        dz, dc = _cell_backward(gates, c_before, c_after, dh, dc)
        dw.append(tf.matmul(tf.one_hot(x[t], size, dtype=products), dz, transpose_a=True))
        if t > 0:  # h before the first step is zero, and nothing depends on it
            du.append(tf.matmul(h_before, dz, transpose_a=True))
            dh = tf.matmul(dz, u_transposed)
    d_w = _sum_in_order(*dw)
    d_u = _sum_in_order(*du) if du else tf.zeros((units, 4 * units), full)
    return loss, [d_w, d_u, tf.reduce_sum(d_w, axis=0), d_dense, tf.reduce_sum(d_logits, axis=0)]


def fused_gradients(
    model: keras.Model, streams: int, products: tf.DType | None = None, exchange: Exchange | None = None
) -> Step:
    """A function of (x, y, weight, key) that returns the batch's mean loss and its gradients.

    x (batch, maxlen) and y (batch,) int32 indices, weight (batch,) float32, 0 for a row that only pads;
    key is not used; `streams` has to divide the batch; products as for `loss_and_gradients`. With an
    exchange, x and y hold only the rows of the streams that are its own.
    """

    def gradients(x, y, weight, key):
        weights = [tf.convert_to_tensor(variable) for variable in model.trainable_variables]

        def of_part(x, y, share, key):
            return loss_and_gradients(weights, x, y, share, products)

        return _sum_of_streams(of_part, streams, exchange, x, y, weight, key)

    return gradients


def _sum_of_streams(of_part: Callable[..., Part], streams: int, exchange, x, y, weight, key):
    """Loss and gradients of a batch, from those of its parts: of_part(x, y, share, key)."""
    own = exchange.own if exchange else range(streams)
    shares = tf.split(weight / tf.reduce_sum(weight), streams)[own.start : own.stop]
    keys = [tf.random.experimental.stateless_fold_in(key, n, "philox") for n in own]
    rows = zip(tf.split(x, len(own)), tf.split(y, len(own)), shares, keys, strict=True)
    parts = [of_part(*part) for part in rows]
    losses, gradients = zip(*(exchange(parts) if exchange else parts), strict=True)
    return _sum_in_order(*losses), [_sum_in_order(*each) for each in zip(*gradients, strict=True)]


def stock_gradients(model: keras.Sequential, streams: int = 1, exchange: Exchange | None = None) -> Step:
    """The same through Keras's own layers and autodiff, for any model."""
    of_part = stock_part(model)

    def gradients(x, y, weight, key):
        return _sum_of_streams(of_part, streams, exchange, x, y, weight, key)

    return gradients


def stock_part(model: keras.Sequential) -> Callable[..., Part]:
    """A function of (x, y, share, key): a stream's part by Keras's layers, on a GPU cuDNN's LSTM.

    Rows, weights and results as for `loss_and_gradients`. A model that answers at every position is asked
    for the character after each of a window's characters; the loss is the mean over positions. Dropout
    draws from `key`, (2,) int32, so that what a step leaves out follows from its number and not from the
    steps before.

    Autodiff adds with `tf.add_n` (see `_sum_in_order`), here never more than two numbers that are not 0,
    and these give the same sum in either order.
    """
    size = model.output_shape[-1]

    def of_part(x, y, share, key):
        with tf.GradientTape() as tape:
            outputs = tf.one_hot(x, size)
            for number, layer in enumerate(model.layers):
                if isinstance(layer, keras.layers.Dropout):
                    seed = tf.random.experimental.stateless_fold_in(key, number, "philox")
                    outputs = tf.nn.experimental.stateless_dropout(outputs, layer.rate, seed, "philox")
                else:
                    outputs = layer(outputs)
            if outputs.shape.rank == 3:
                targets = tf.one_hot(tf.concat([x[:, 1:], y[:, None]], axis=1), size)
                losses = keras.losses.categorical_crossentropy(targets, outputs)
                losses = tf.reduce_mean(losses, axis=1)
            else:
                losses = keras.losses.categorical_crossentropy(tf.one_hot(y, size), outputs)
            loss = tf.reduce_sum(losses * share)
        return loss, tape.gradient(loss, model.trainable_variables)

    return of_part


def optimizer_step(gradients: Step, model: keras.Model, batch: int, own: int | None = None) -> Step:
    """Compile `gradients` and the optimizer's update to (x, y, weight, key) -> mean loss.

    own: rows of x and y, where they are not the whole batch that `weight` is of.
    """
    x, y, _ = _batch_signature(own or batch, model.input_shape[1])
    signature = [x, y, tf.TensorSpec((batch,), tf.float32), tf.TensorSpec((2,), tf.int32)]

    def step(x, y, weight, key):
        loss, grads = gradients(x, y, weight, key)
        model.optimizer.apply(grads, model.trainable_variables)
        return loss

    return tf.function(step, autograph=False, input_signature=signature)


def sum_of_losses(model: keras.Model, batch: int, streams: int = 1) -> Losses:
    """Compile a function of (x, y, weight), as above, that returns the weighted sum of losses.

    Those of the character after each window, also where the model answers at every position.
    """
    maxlen, size = model.input_shape[1:]

    def sum_of_part(x, y, weight):
        probabilities = model(tf.one_hot(x, size), training=False)
        if probabilities.shape.rank == 3:
            probabilities = probabilities[:, -1]
        return tf.reduce_sum(
            keras.losses.categorical_crossentropy(tf.one_hot(y, size), probabilities) * weight
        )

    def losses(*arrays):
        parts = zip(*(tf.split(array, streams) for array in arrays), strict=True)
        return _sum_in_order(*(sum_of_part(*part) for part in parts))

    return tf.function(losses, autograph=False, input_signature=_batch_signature(batch, maxlen))


def _batch_signature(batch: int, maxlen: int) -> list[tf.TensorSpec]:
    """The types of (x, y, weight)."""
    return [
        tf.TensorSpec((batch, maxlen), tf.int32),
        tf.TensorSpec((batch,), tf.int32),
        tf.TensorSpec((batch,), tf.float32),
    ]
