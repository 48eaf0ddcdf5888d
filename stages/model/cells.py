"""The recurrent cells of the fused sequence step: a time step forward and back, each one XLA kernel.

For n windows, H units and G gates, a cell gets zx (n, G H), the input's product with the kernel plus the
bias, and zh (n, G H), the product h U plus the recurrent bias of a GRU. It has a memory beside h: an LSTM
its c, a GRU its h once more, since h itself may be in bfloat16. As Keras's layers compute them (for the GRU
`reset_after`, the form of Cho et al. 2014 that cuDNN has):

    lstm:  i, f, o = sigmoid(zx + zh),  g = tanh(zx + zh);   c' = f c + i g,  h' = o tanh(c')
    gru:   z, r = sigmoid(zx + zh),  k = tanh(zx + r zh);    h' = z h + (1 - z) k
    rnn:   h' = tanh(zx + zh)

and back, with dA for the derivative of the loss by A, from sigmoid' = s (1 - s) and tanh' = 1 - tanh^2:

    lstm:  dc' += dh' o (1 - tanh(c')^2)
           dz = [dc' g i (1-i),  dc' c f (1-f),  dc' i (1-g^2),  dh' tanh(c') o (1-o)],   dc = dc' f
    gru:   dz = dh' (h - k) z (1-z),  dk = dh' (1-z) (1-k^2),  dr = dk zh_k r (1-r)
           dzx = [dz, dr, dk],  dzh = [dz, dr, dk r],  and dh' z goes on to h by itself
    rnn:   dz = dh' (1 - h'^2)
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

Tensors = tuple[tf.Tensor, ...]


class Cell(NamedTuple):
    """The arithmetic of one kind of cell.

    Attributes:
        gates: G.
        memories: tensors (n, H) that a cell has beside h, 0 or 1.
        forward: (zx, zh, memory) -> what the way back needs, h', memory after.
        backward: (kept, memory before, memory after, dh', derivative of the memory after) -> dzx, dzh,
            derivative of the memory before. dzh is None where it is dzx.
    """

    gates: int
    memories: int
    forward: Callable[..., tuple[Tensors, tf.Tensor, Tensors]]
    backward: Callable[..., tuple[tf.Tensor, tf.Tensor | None, Tensors]]


def _sigmoid(z):
    # one operation for sigmoid and tanh, which XLA computes faster than its own sigmoid
    return tf.tanh(z / 2) / 2 + 1 / 2


def _lstm_forward(zx, zh, memory):
    (c,) = memory
    one_gate = np.ones(c.shape[1])
    scale = tf.constant(np.concatenate([one_gate / 2, one_gate / 2, one_gate, one_gate / 2]), c.dtype)
    gates = tf.tanh((zx + zh) * scale) * scale + (1 - scale)
    i, f, g, o = tf.split(gates, 4, axis=1)
    c = f * c + i * g
    return (gates,), o * tf.tanh(c), (c,)


def _lstm_backward(kept, before, after, dh, d_after):
    i, f, g, o = tf.split(kept[0], 4, axis=1)
    tanh_c = tf.tanh(after[0])
    dc = d_after[0] + dh * o * (1 - tanh_c * tanh_c)
    dz = [
        dc * g * i * (1 - i),
        dc * before[0] * f * (1 - f),
        dc * i * (1 - g * g),
        dh * tanh_c * o * (1 - o),
    ]
    return tf.reshape(tf.stack(dz, axis=1), kept[0].shape), None, (dc * f,)


def _gru_forward(zx, zh, memory):
    (h,) = memory
    zx_z, zx_r, zx_k = tf.split(zx, 3, axis=1)
    zh_z, zh_r, zh_k = tf.split(zh, 3, axis=1)
    z, r = _sigmoid(zx_z + zh_z), _sigmoid(zx_r + zh_r)
    k = tf.tanh(zx_k + r * zh_k)
    h = z * h + (1 - z) * k
    return (z, r, k, zh_k), h, (h,)


def _gru_backward(kept, before, after, dh, d_after):
    z, r, k, zh_k = kept
    dh += d_after[0]
    dz, dk = dh * (before[0] - k) * z * (1 - z), dh * (1 - z) * (1 - k * k)
    dr = dk * zh_k * r * (1 - r)
    return tf.concat([dz, dr, dk], axis=1), tf.concat([dz, dr, dk * r], axis=1), (dh * z,)


def _rnn_forward(zx, zh, memory):
    h = tf.tanh(zx + zh)
    return (h,), h, ()


def _rnn_backward(kept, before, after, dh, d_after):
    return dh * (1 - kept[0] * kept[0]), None, ()


CELLS = {
    "lstm": Cell(4, 1, _lstm_forward, _lstm_backward),
    "gru": Cell(3, 1, _gru_forward, _gru_backward),
    "rnn": Cell(1, 0, _rnn_forward, _rnn_backward),
}


@tf.function(jit_compile=True, autograph=False)
def forward_kernel(
    cell: Cell, zx: tf.Tensor, bias: tf.Tensor, zh: tf.Tensor, recurrent_bias: tf.Tensor, memory: Tensors
):
    """Compute a time step.

    Args:
        cell: the kind of cell.
        zx: (n, G H), the input's product with the kernel.
        bias: (G H,).
        zh: (n, G H), h U; its type is that of what is kept and of h.
        recurrent_bias: (G H,) of a GRU, or a scalar 0.
        memory: (n, H) tensors, as many as the cell has.

    Returns:
        What the way back needs, h' and the memory after.
    """
    low, full = zh.dtype, recurrent_bias.dtype
    kept, h, memory = cell.forward(tf.cast(zx, full) + bias, tf.cast(zh, full) + recurrent_bias, memory)
    return tuple(tf.cast(each, low) for each in kept), tf.cast(h, low), memory


@tf.function(jit_compile=True, autograph=False)
def backward_kernel(
    cell: Cell, kept: Tensors, before: Tensors, after: Tensors, dhs: Tensors, d_after: Tensors, like
):
    """Differentiate a time step.

    Args:
        cell: the kind of cell.
        kept: what `forward_kernel` kept.
        before: the memory before the step.
        after: the memory after it.
        dhs: (n, H) derivatives by h', to be added: of the layer above and of the next time step.
        d_after: the derivative by the memory after it.
        like: a scalar of the type to compute in.

    Returns:
        dzx and dzh (n, G H), in the type of what was kept, and the derivative by the memory before. dzh is
        None where it is dzx.
    """
    low, full = kept[0].dtype, like.dtype
    kept = tuple(tf.cast(each, full) for each in kept)
    dh = tf.cast(dhs[0], full)
    for each in dhs[1:]:
        dh += tf.cast(each, full)
    dzx, dzh, d_before = cell.backward(kept, before, after, dh, d_after)
    return tf.cast(dzx, low), None if dzh is None else tf.cast(dzh, low), d_before
