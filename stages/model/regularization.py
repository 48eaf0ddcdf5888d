"""What a training step does against overfitting, beside weight decay and the average of the weights.

All draws follow from the step's key:

- dropout on each recurrent layer's outputs, drawn for each position (Srivastava et al. 2014) or once for
  all positions of a window (variational dropout: Gal & Ghahramani 2016)
- DropConnect on the recurrent weights U, drawn once for a step (Wan et al. 2013; Merity et al. 2018):
  U' = U m / (1 - p), with m 0 with probability p and else 1; dU = dU' m / (1 - p)
- dropout on the inputs: a step leaves out whole characters, at all positions of all windows (embedding
  dropout: Gal & Ghahramani 2016; Merity et al. 2018). It is the same on the rows of the embedding or, where
  there is none, of the first kernel
- tied embedding and output (Press & Wolf 2017): D is E^T from the start, and both get the sum of their
  gradients. The optimizers treat each number by itself, so they stay equal. `train.clip_norm`
  counts the shared gradient twice.
"""

from typing import NamedTuple

import tensorflow as tf

from stages.model.microbatches import fold_in, sum_in_order

WEIGHT_DROPOUT = 1000  # draws of the weights, apart from those of layers, which have their numbers


class Regularization(NamedTuple):
    """What a training step does against overfitting, beside the model's dropout layers.

    Attributes:
        weight_dropout: share of the recurrent weights that a step leaves out.
        embedding_dropout: share of the vocabulary that a step leaves out of the inputs.
        variational_dropout: whether dropout leaves out the same outputs at all positions of a window.
        tied: whether the embedding and the output layer share their weights.
    """

    weight_dropout: float = 0.0
    embedding_dropout: float = 0.0
    variational_dropout: bool = False
    tied: bool = False


def dropout_mask(key: tf.Tensor, rate: float, shape: tuple[int, ...], dtype: tf.DType) -> tf.Tensor:
    """Draw a mask: 0 with probability `rate`, else 1 / (1 - rate)."""
    draws = tf.random.stateless_uniform(shape, key, alg="philox")
    return tf.cast(draws >= rate, dtype) * (1 / (1 - rate))


def output_mask(
    key, number: int, rate: float, shape: tuple[int, int, int], variational: bool, dtype=tf.float32
):
    """Draw the dropout of a layer's outputs.

    Args:
        key: (2,) int32, of the microbatch.
        number: of the dropout layer in the model.
        rate: the share to leave out.
        shape: (T, n, H).
        variational: whether to draw once for all positions.
        dtype: of the mask.

    Returns:
        (T, n, H), or (1, n, H) if variational.
    """
    return dropout_mask(fold_in(key, number), rate, (1, *shape[1:]) if variational else shape, dtype)


def drop_weights(
    key, weights: list[tf.Tensor], which: list[int], rate: float, by_row: bool = False
) -> dict[int, tf.Tensor]:
    """Leave out a share of some weights, in place.

    Args:
        key: (2,) int32, of the step.
        weights: of the model.
        which: the numbers of those to treat.
        rate: the share.
        by_row: whether to leave out whole rows.

    Returns:
        By number the mask, which the gradient is to be multiplied with, too.
    """
    masks = {}
    for number in which if rate else []:
        own = fold_in(key, WEIGHT_DROPOUT + number)
        shape = weights[number].shape
        masks[number] = dropout_mask(own, rate, (shape[0], 1) if by_row else shape, weights[number].dtype)
        weights[number] *= masks[number]
    return masks


def tie_gradients(gradients: list[tf.Tensor]) -> None:
    """Give embedding, first of all weights, and output, last but one, the sum of their gradients."""
    gradients[0] = sum_in_order(gradients[0], tf.transpose(gradients[-2]))
    gradients[-2] = tf.transpose(gradients[0])
