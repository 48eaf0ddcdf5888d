"""Metrics of generated text: does it write words, does it copy, does it repeat itself?

All of them need no second model. `known_words`, `novelty_N` and `distinct_N` lie between 0 and 1.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from stages.text.vocabulary import codes

NOVELTY_N = range(1, 13)
DISTINCT_N = range(1, 9)
AT_ONCE = 1 << 20  # characters of the corpus that are looked at together, at least
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def quality_table(corpus: Iterable[str], samples: Sequence[dict[str, Any]]) -> str:
    """Measure samples, as a tab-separated table.

    Args:
        corpus: the normalized text that the model was trained on, in pieces of whole words.
        samples: rows of `metrics/samples.jsonl`.

    Returns:
        A header and a row for each sample: epoch, temperature and the metrics of `measure`.
    """
    texts, prompts = ([sample[name] for sample in samples] for name in ("text", "prompt"))
    measured = measure(corpus, texts, prompts)
    rows = ["\t".join(["epoch", "temperature", *measured[0]])]
    for sample, metrics in zip(samples, measured, strict=True):
        rows.append("\t".join(map(str, [sample["epoch"], sample["temperature"], *metrics.values()])))
    return "\n".join(rows) + "\n"


def measure(corpus: Iterable[str], texts: Sequence[str], prompts: Sequence[str]) -> list[dict[str, float]]:
    """Compute the metrics of each text, rounded to four digits.

    Args:
        corpus: the normalized text that the model was trained on, in pieces of whole words.
        texts: the generated texts.
        prompts: what each of them continues.

    Returns:
        For each text `known_words`, the share of its words that occur as words in the corpus; `novelty_N`,
        the share of its N-grams (of characters) that do not occur in the corpus; `longest_copy`, the
        characters of its longest passage that does; `distinct_N`, its distinct N-grams as a share of all.
        Where a text is too short to have any, known words and novelty are 0, distinct N-grams 1.
    """
    words_of_texts = [whole_words(text, prompt) for text, prompt in zip(texts, prompts, strict=True)]
    all_words, known = {word for words in words_of_texts for word in words}, set()
    ngrams = SharedNgrams(texts)
    for piece in corpus:
        known |= all_words.intersection(found[0] for found in WORD.finditer(piece))
        ngrams.look_in(piece)
    copied = ngrams.counts()
    measured = []
    for number, (text, words) in enumerate(zip(texts, words_of_texts, strict=True)):
        counts = [int(found[number]) for found in copied]
        each: dict[str, float] = {
            "known_words": sum(word in known for word in words) / len(words) if words else 0.0
        }
        for n in NOVELTY_N:
            found = counts[n - 1] if n <= len(counts) else 0
            grams_in_text = len(text) - n + 1
            each[f"novelty_{n}"] = 1 - found / grams_in_text if grams_in_text > 0 else 0.0
        each["longest_copy"] = max((n for n, found in enumerate(counts, 1) if found), default=0)
        for n in DISTINCT_N:
            grams = [text[i : i + n] for i in range(len(text) - n + 1)]
            each[f"distinct_{n}"] = len(set(grams)) / len(grams) if grams else 1.0
        measured.append({name: round(value, 4) for name, value in each.items()})
    return measured


def whole_words(text: str, prompt: str) -> list[str]:
    """List the words of a text that continues a prompt, without those that either end cuts in two."""
    words = [(found.start(), found.end(), found[0]) for found in WORD.finditer(text)]
    continues_word = bool(prompt) and bool(WORD.fullmatch(prompt[-1]))
    return [word for start, end, word in words if not (start == 0 and continues_word) and end < len(text)]


class SharedNgrams:
    """For each position of some texts, how many characters from there on occur together in a corpus.

    The corpus is looked at in pieces that overlap, so the memory that this takes depends on the texts only.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Start with an empty corpus.

        Args:
            texts: the texts to look for.
        """
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        self._characters = codes("".join(texts)).astype(np.int64)
        self._ends = np.repeat(np.cumsum(lengths), lengths)  # of the text that a position lies in
        self._owner = np.repeat(np.arange(len(texts)), lengths)
        self._texts = len(texts)
        self._longest = np.zeros(len(self._characters), np.int64)
        self._overlap = max(lengths, default=0) - 1
        self._at_once = max(AT_ONCE, len(self._characters))
        self._tail = ""

    def look_in(self, piece: str) -> None:
        """Look in the next piece of the corpus."""
        for start in range(0, len(piece), self._at_once):
            window = self._tail + piece[start : start + self._at_once]
            self._look_in_window(codes(window).astype(np.int64))
            self._tail = window[-self._overlap :] if self._overlap > 0 else ""

    def _look_in_window(self, ours: np.ndarray) -> None:
        """Look in a part of the corpus.

        This is exact, by refinement: an (n + 1)-gram is an n-gram, known by a number, and the character
        after it. Only positions whose n-gram both sides have can have n + 1 characters in common, so each
        round looks at fewer positions.
        """
        at, their_at = np.arange(len(ours)), np.arange(len(self._characters))
        number, their_number = np.zeros(len(ours), np.int64), np.zeros(len(their_at), np.int64)
        n = 0
        while len(their_at):
            n += 1
            fits, they_fit = at + n <= len(ours), their_at + n <= self._ends[their_at]
            at, number = at[fits], number[fits]
            their_at, their_number = their_at[they_fit], their_number[they_fit]
            keys = number * 0x110000 + ours[at + n - 1]
            distinct, their_number = np.unique(
                their_number * 0x110000 + self._characters[their_at + n - 1], return_inverse=True
            )
            if not len(distinct):
                break
            number = np.minimum(np.searchsorted(distinct, keys), len(distinct) - 1)
            found = distinct[number] == keys
            at, number = at[found], number[found]
            in_corpus = np.zeros(len(distinct), dtype=bool)
            in_corpus[number] = True
            shared = in_corpus[their_number]
            their_at, their_number = their_at[shared], their_number[shared]
            self._longest[their_at] = np.maximum(self._longest[their_at], n)

    def counts(self) -> list[np.ndarray]:
        """Count the positions of each text at which n characters begin that occur in the corpus.

        Returns:
            For n = 1, 2, ... an array (texts,), as long as any count is above 0.
        """
        counts = []
        at = np.flatnonzero(self._longest)
        while len(at):
            counts.append(np.bincount(self._owner[at], minlength=self._texts))
            at = at[self._longest[at] > len(counts)]
        return counts
