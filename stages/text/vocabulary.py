"""The vocabulary: the sorted distinct characters of a text, and the text as indices into it."""

import hashlib

import numpy as np

from stages.common.errors import StageError

PIECE = 1 << 20  # characters that are encoded together, so that the numbers take no memory to speak of


def encode(text: str) -> tuple[np.ndarray, str]:
    """Encode a text as indices into its own vocabulary.

    The article's `sorted(list(set(text)))` and `char_indices`.

    Args:
        text: any text.

    Returns:
        (len(text),) indices in the smallest unsigned type that fits, and the vocabulary, one character
        per index.
    """
    pieces = [slice(start, start + PIECE) for start in range(0, len(text), PIECE)]
    occurs = np.zeros(0x110000, dtype=bool)
    for piece in pieces:
        occurs[codes(text[piece])] = True
    vocabulary = np.flatnonzero(occurs)
    smallest = np.min_scalar_type(max(len(vocabulary) - 1, 0))
    index_of = np.zeros(0x110000, dtype=smallest)
    index_of[vocabulary] = np.arange(len(vocabulary), dtype=smallest)
    indices = np.empty(len(text), dtype=smallest)
    for piece in pieces:
        indices[piece] = index_of[codes(text[piece])]
    return indices, "".join(map(chr, vocabulary))


def codes(text: str) -> np.ndarray:
    """Return the code points of a text's characters, (len(text),) uint32."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def encode_known(text: str, vocabulary: str) -> tuple[np.ndarray, np.ndarray]:
    """Encode a text without the characters that a vocabulary lacks.

    Args:
        text: any text.
        vocabulary: distinct characters.

    Returns:
        (k,) indices of the characters that it has, and (k,) their positions in the text.
    """
    index_of = np.full(0x110000, -1, dtype=np.int32)
    index_of[codes(vocabulary)] = np.arange(len(vocabulary))
    indices = index_of[codes(text)]
    positions = np.flatnonzero(indices >= 0)
    return indices[positions], positions


def vocabulary_sha256(vocabulary: str) -> str:
    """Hash a vocabulary, in hexadecimal; models and checkpoints name the one that they are of."""
    return hashlib.sha256(vocabulary.encode()).hexdigest()


def decode(indices: np.ndarray, vocabulary: str) -> str:
    """Decode (length,) indices into the characters of the vocabulary."""
    return "".join(vocabulary[index] for index in indices)


def encode_prompt(prompt: str, vocabulary: str, maxlen: int, name: str = "sample.prompt") -> np.ndarray:
    """Encode the last `maxlen` characters of a prompt.

    Args:
        prompt: the text that generation starts from.
        vocabulary: the model's vocabulary.
        maxlen: characters that the model reads.
        name: what error messages call the prompt.

    Returns:
        (P,) int32 indices, 1 <= P <= maxlen.

    Raises:
        StageError: the prompt is empty or has a character outside the vocabulary; the message names the
            first one.
    """
    if not prompt:
        raise StageError(f"{name}: got an empty text; takes at least one character")
    index_of = {character: index for index, character in enumerate(vocabulary)}
    for position, character in enumerate(prompt):
        if character not in index_of:
            other_case = character.swapcase()
            hint = f" (there is {other_case!r})" if other_case in index_of else ""
            raise StageError(
                f"{name}: character {character!r} at position {position} is not in the vocabulary"
                f"{hint}; takes only {vocabulary!r}"
            )
    return np.array([index_of[character] for character in prompt[-maxlen:]], dtype=np.int32)
