r"""The fused LSTM step: loss and gradients of the article's model on a CPU, written by hand.

It computes what Keras's own layers compute, with the same variables. It applies to
`Input -> LSTM -> Dense(softmax)` with standard activations, zero initial state and the last output only.
Four things make it faster than the stock layer:

1. The input product x_t W of a one-hot x_t is a row of W, so it is looked up instead of multiplied.
2. The time steps are unrolled, and what lies between two matrix products is one XLA kernel each way.
3. The gradient with respect to W and U is a product per time step, outside the recurrence.
4. The batch is computed in microbatches, side by side (see `microbatches.py`).

Forward (Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; Keras's gate order
i, f, g, o), for windows x_1..x_T, h_0 = c_0 = 0, all products with one row per window:

    z_t = x_t W + b + h_{t-1} U,   i, f, o = sigmoid(z_i, z_f, z_o),   g = tanh(z_g)
    c_t = f * c_{t-1} + i * g,     h_t = o * tanh(c_t)
    logits = h_T D + d,            loss = -sum_n w_n log softmax(logits)_n[y_n] / sum_n w_n

Backward, with dA for the derivative of the loss by A, from sigmoid' = s(1 - s) and tanh' = 1 - tanh^2:

    dlogits = (softmax(logits) - onehot(y)) w / sum w
    dD = h_T' dlogits,  dd = sum dlogits,  dh_T = dlogits D',  dc_T = 0
    for t = T..1:   dc_t += dh_t * o * (1 - tanh(c_t)^2)
                    dz_t  = [dc_t g i(1-i),  dc_t c_{t-1} f(1-f),  dc_t i(1-g^2),  dh_t tanh(c_t) o(1-o)]
                    dc_{t-1} = dc_t * f,     dh_{t-1} = dz_t U'
    dU = sum_t h_{t-1}' dz_t,   dW = sum_t onehot(x_t)' dz_t,   db = sum_t,n dz_t = sum of dW's rows

Memory: the forward pass keeps 6H floats per window and time step (i f g o, c, h; tanh c is computed
again), the backward pass adds 4H (dz) until their products are done: at most
4 * 10 * H * maxlen * batch bytes, 210 MB at the article's H = 128, maxlen = 40, batch = 1,024.

With `dtype` bfloat16 (`train.precision: mixed_bfloat16`) the matrix products of the recurrence read and
write numbers of 8 bits' precision, which hardware made for it does several times faster. c, dc, the
element-wise part, the loss, the sums over time and microbatches, the weights and the optimizer stay in
float32 (Micikevicius et al. 2018). Gates, h and dz are kept in bfloat16, which halves most of the memory.
"""

import keras
import numpy as np
import tensorflow as tf

from stages.model.microbatches import (
    BatchGradients,
    Exchange,
    LossAndGradients,
    over_microbatches,
    sum_in_order,
)

STANDARD_LSTM = {
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


def applies_to(model: keras.Model) -> bool:
    """Tell whether the fused step computes this model: the article's layers with standard settings."""
    layers = model.layers
    if [type(layer) for layer in layers] != [keras.layers.LSTM, keras.layers.Dense]:
        return False
    lstm, dense = (layer.get_config() for layer in layers)
    return (
        all(lstm.get(key) == value for key, value in STANDARD_LSTM.items())
        and dense["activation"] == "softmax"
        and dense["use_bias"]
        and all(weight.dtype == "float32" for weight in model.trainable_variables)
    )


@tf.function(jit_compile=True, autograph=False)
def _cell_forward(wb, x, zh, c):
    """Compute one time step: wb (V, 4H) is W + b, x (n,) indices, zh (n, 4H) is h U, c (n, H).

    sigmoid(z) = tanh(z / 2) / 2 + 1/2 makes one operation of the four gates. Returns the gates (n, 4H)
    and h (n, H) in the type of zh, and c.
    """
    one_gate = np.ones(c.shape[1])
    scale = tf.constant(np.concatenate([one_gate / 2, one_gate / 2, one_gate, one_gate / 2]), c.dtype)
    gates = tf.tanh((tf.gather(wb, x) + tf.cast(zh, c.dtype)) * scale) * scale + (1 - scale)
    i, f, g, o = tf.split(gates, 4, axis=1)
    c = f * c + i * g
    return tf.cast(gates, zh.dtype), c, tf.cast(o * tf.tanh(c), zh.dtype)


@tf.function(jit_compile=True, autograph=False)
def _cell_backward(gates, c_before, c, dh, dc):
    """Differentiate one time step: gates (n, 4H), the rest (n, H). Returns dz (n, 4H) and dc before it."""
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


def loss_and_gradients(weights, x, y, share, dtype=None) -> LossAndGradients:
    """Compute the loss and gradients of one microbatch.

    Args:
        weights: W (V, 4H), U (H, 4H), b (4H,), D (H, V), d (V,), in Keras's order.
        x: (n, maxlen) int32 indices.
        y: (n,) int32 indices.
        share: (n,) each window's weight over the sum of weights of the whole batch.
        dtype: the dtype of the recurrence's matrix products and of what is kept for them; None for that
            of the weights.

    Returns:
        The microbatch's part of the loss, a scalar, and of the five gradients, in the order of `weights`.
    """
    w, u, b, dense, dense_bias = weights
    n, maxlen = x.shape
    size, units = w.shape[0], u.shape[0]
    full, dtype = u.dtype, dtype or u.dtype
    u = tf.cast(u, dtype)
    wb, u_transposed = w + b, tf.transpose(u)
    x = tf.unstack(x, axis=1)
    h, c = tf.zeros((n, units), dtype), tf.zeros((n, units), full)
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
        dw.append(tf.matmul(tf.one_hot(x[t], size, dtype=dtype), dz, transpose_a=True))
        if t > 0:  # h before the first step is zero, and nothing depends on it
            du.append(tf.matmul(h_before, dz, transpose_a=True))
            dh = tf.matmul(dz, u_transposed)
    d_w = sum_in_order(*dw)
    d_u = sum_in_order(*du) if du else tf.zeros((units, 4 * units), full)
    return loss, [d_w, d_u, tf.reduce_sum(d_w, axis=0), d_dense, tf.reduce_sum(d_logits, axis=0)]


def fused_gradients(
    model: keras.Model, microbatches: int, dtype: tf.DType | None = None, exchange: Exchange | None = None
) -> BatchGradients:
    """Build the function that computes a batch's mean loss and its gradients.

    Args:
        model: a model that `applies_to` accepts.
        microbatches: as for `over_microbatches`.
        dtype: as for `loss_and_gradients`.
        exchange: as for `over_microbatches`.

    Returns:
        A function as `over_microbatches` returns. It does not use its key.
    """

    def gradients(x, y, weight, key):
        # read once per batch, not once per microbatch
        weights = [tf.convert_to_tensor(variable) for variable in model.trainable_variables]

        def of_microbatch(x, y, share, key):
            return loss_and_gradients(weights, x, y, share, dtype)

        return over_microbatches(of_microbatch, microbatches, exchange)(x, y, weight, key)

    return gradients
