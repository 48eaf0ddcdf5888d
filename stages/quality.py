"""Stage `quality`: how good the samples are, for each epoch and temperature.

Three questions, each answered with numbers between 0 and 1 that need no second model: does it write words
(`known_words`), does it copy (`novelty_N`, `longest_copy`), does it repeat itself (`distinct_N`)?
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.errors import StageError, run_stage
from stages.files import write_bytes_whole
from stages.layout import CORPUS_FILE, QUALITY_FILE, QUALITY_METRICS, SAMPLES_FILE
from stages.params import read_params
from stages.text import read_text

NOVELTY_N = range(1, 13)
DISTINCT_N = range(1, 9)
OF_THE_LAST_EPOCH = ("known_words", "novelty_8", "novelty_12", "longest_copy")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def main() -> None:
    """Measure all samples; write a table of every figure and the last epoch's as metrics."""
    settings = read_params().vectorize
    corpus = read_text(CORPUS_FILE, settings.lowercase, settings.newlines_to_spaces)
    try:
        lines = SAMPLES_FILE.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise StageError(f"{SAMPLES_FILE} is missing; `dvc repro sample` makes it") from None
    samples: list[dict[str, Any]] = [json.loads(line) for line in lines]
    figures = measure(corpus, [sample["text"] for sample in samples], [s["prompt"] for s in samples])

    rows = ["\t".join(["epoch", "temperature", *figures[0]])]
    last: dict[str, Any] = {"epoch": samples[-1]["epoch"]}
    for sample, each in zip(samples, figures, strict=True):
        rows.append("\t".join(map(str, [sample["epoch"], sample["temperature"], *each.values()])))
        if sample["epoch"] == last["epoch"]:
            last[f"temperature {sample['temperature']}"] = {
                name: each[name] for name in OF_THE_LAST_EPOCH
            }
    write_bytes_whole(QUALITY_FILE, ("\n".join(rows) + "\n").encode())
    write_bytes_whole(QUALITY_METRICS, (json.dumps(last, indent=2) + "\n").encode())
    print(f"{len(samples)} samples against {len(corpus):,} characters: {QUALITY_FILE}, {QUALITY_METRICS}")


def measure(corpus: str, texts: Sequence[str], prompts: Sequence[str]) -> list[dict[str, float]]:
    """The figures of each text, rounded to four digits.

    known_words: share of its words that occur as words in the corpus. novelty_N: share of its runs of N
    characters that do not occur in the corpus. longest_copy: characters of its longest passage that does.
    distinct_N: share of its runs of N characters that are different ones. Where a text is too short to
    have any, a share is 0 for known words and novelty and 1 for distinct ones.
    """
    vocabulary = {found[0] for found in WORD.finditer(corpus)}
    copied = shared_ngrams(corpus, texts)
    figures = []
    for number, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        words = whole_words(text, prompt)
        counts = [int(found[number]) for found in copied]
        each: dict[str, float] = {
            "known_words": sum(word in vocabulary for word in words) / len(words) if words else 0.0
        }
        for n in NOVELTY_N:
            found = counts[n - 1] if n <= len(counts) else 0
            runs = len(text) - n + 1
            each[f"novelty_{n}"] = 1 - found / runs if runs > 0 else 0.0
        each["longest_copy"] = max((n for n, found in enumerate(counts, 1) if found), default=0)
        for n in DISTINCT_N:
            grams = [text[i : i + n] for i in range(len(text) - n + 1)]
            each[f"distinct_{n}"] = len(set(grams)) / len(grams) if grams else 1.0
        figures.append({name: round(value, 4) for name, value in each.items()})
    return figures


def whole_words(text: str, prompt: str) -> list[str]:
    """The words of a text that goes on from a prompt, without those that either end cuts in two."""
    words = [(found.start(), found.end(), found[0]) for found in WORD.finditer(text)]
    begun = bool(prompt) and bool(WORD.fullmatch(prompt[-1]))
    return [word for start, end, word in words if not (start == 0 and begun) and end < len(text)]


def shared_ngrams(corpus: str, texts: Sequence[str]) -> list[np.ndarray]:
    """For n = 1, 2, ...: how many positions of each text begin n characters that occur in the corpus.

    Returns arrays (len(texts),) for as long as any text shares any. Exact, by refinement: a run of n + 1
    characters is a run of n, known by a number, and a character after it, and only positions whose n
    characters both sides have can have n + 1 in common. So each round looks at fewer positions.
    """
    joined = "".join(texts)
    characters = np.frombuffer((corpus + joined).encode("utf-32-le"), dtype="<u4").astype(np.int64)
    ours, theirs = characters[: len(corpus)], characters[len(corpus) :]
    lengths = np.array([len(text) for text in texts])
    ends = np.repeat(np.cumsum(lengths), lengths)  # of the text that a position lies in
    owner = np.repeat(np.arange(len(texts)), lengths)
    at, their_at = np.arange(len(ours)), np.arange(len(theirs))
    number, their_number = np.zeros(len(ours), np.int64), np.zeros(len(theirs), np.int64)
    counts = []
    for n in range(1, max(lengths, default=0) + 1):
        fits, they_fit = at + n <= len(ours), their_at + n <= ends[their_at]
        at, number = at[fits], number[fits]
        their_at, their_number = their_at[they_fit], their_number[they_fit]
        keys = number * 0x110000 + ours[at + n - 1]
        distinct, their_number = np.unique(
            their_number * 0x110000 + theirs[their_at + n - 1], return_inverse=True
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
        if not len(their_at):
            break
        counts.append(np.bincount(owner[their_at], minlength=len(texts)))
    return counts


if __name__ == "__main__":
    run_stage(main)
