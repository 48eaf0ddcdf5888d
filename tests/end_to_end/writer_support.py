"""Models of every kind, what `generate` and Keras make of them, and pages in which they write.

`python -m tests.end_to_end.writer_support FOLDER` makes the models in one process.
"""

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stages.common.params import Report, Sample, read_params
from stages.evaluation.page import render
from stages.evaluation.writer import Writer, make_writer
from stages.text.vocabulary import decode, vocabulary_sha256
from stages.text.vocabulary_file import ModelText, read_model_text, write_model_text
from tests.support import ROOT

Dtype = Literal["float32", "int16"]
VOCABULARY = "".join(sorted("\n abcdefghij,.äאבג€😀"))
MAXLEN = 12
PROMPT = "bad cab 😀, אב\nfed, each hid a face."  # longer than a window
WINDOWS = [[1, 5, 3], [7] * MAXLEN, list(range(2, 2 + MAXLEN)), [*range(19, 7, -1)]]
LIKELIEST = ["--temperature", "0"]
DRAWN = ["--temperature", "0.9", "--top-k", "6", "--seed", "4000000001"]
KINDS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "gru": {"cell": "gru"},
    "rnn": {"cell": "rnn"},
    "two layers": {"layers": 2},
    "embedding": {"embedding": 40},  # more than characters, so the page has its product with the kernel
    "gru, all of it": {"cell": "gru", "layers": 3, "embedding": 7, "dropout": 0.3, "units": 13},
    "carried": {"layers": 2},  # its text is read with a state that goes on
}
# seed and size of the weights, chosen so that the likeliest text has many characters, none of them near a tie
WEIGHTS = {
    "lstm": (9, 3),
    "gru": (1, 3),
    "rnn": (2, 2.5),
    "two layers": (11, 3),
    "embedding": (18, 4),
    "gru, all of it": (3, 3),
    "carried": (20, 4),
}


def text_of(kind: str) -> ModelText:
    """How a model reads text."""
    first = np.resize([4, 2, 9, 1, 5, 3], MAXLEN)
    return ModelText(
        vocabulary=VOCABULARY,
        lowercase=True,
        newlines_to_spaces=False,
        first_window=decode(first, VOCABULARY),
        carried=kind == "carried",
    )


def make(folder: Path) -> None:
    """Write each model with its weights, its texts by `generate` and its logits by Keras."""
    from stages.training.device import set_up_tensorflow

    set_up_tensorflow("cpu")
    import keras

    from stages.generate import main
    from stages.model.architecture import build_model
    from stages.model.export import save_model

    for kind, changes in KINDS.items():
        options = {"maxlen": MAXLEN, "vocab_size": len(VOCABULARY), "units": 24} | changes
        model = build_model(**options)
        seed, size = WEIGHTS[kind]
        rng = np.random.default_rng(seed)
        weights = [rng.normal(0, size / max(len(w), 9) ** 0.5, w.shape) for w in model.get_weights()]
        if kind == "embedding":
            weights[0][:, 0] = 0  # a column without a largest number
        model.set_weights(weights)
        place = folder / kind
        place.mkdir()
        save_model(model, place / "model.keras", vocabulary_sha256(VOCABULARY))
        write_model_text(place, text_of(kind))
        np.savez(place / "weights.npz", *model.get_weights())
        texts = []
        for draws in (LIKELIEST, DRAWN):
            sys.argv = [
                *("generate", "--model", str(place), "--length", "300"),
                *("--prompt", PROMPT, *draws),
            ]
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                main()
            texts.append(printed.getvalue().removesuffix("\n"))
        logits: list[list[float]] = []
        any_length = build_model(**options | {"maxlen": None})
        any_length.set_weights(model.get_weights())
        *_, below, dense = any_length.layers
        kernel, bias = dense.get_weights()
        hidden = keras.Model(any_length.inputs, below.output)
        for window in WINDOWS:
            x = np.eye(len(VOCABULARY), dtype=np.float32)[window][None]
            logits.append((hidden(x).numpy()[0] @ kernel + bias).tolist())
        about = {"options": options, "likeliest": texts[0], "drawn": texts[1], "logits": logits}
        (place / "about.json").write_text(json.dumps(about), encoding="utf-8")


def writer_of(folder: Path, kind: str, dtype: Dtype = "float32") -> Writer:
    """The writer of one of these models."""
    about = json.loads((folder / kind / "about.json").read_text(encoding="utf-8"))
    with np.load(folder / kind / "weights.npz") as file:
        weights = [file[name] for name in file.files]
    options = {"cell": "lstm", "layers": 1, "embedding": None} | about["options"]
    text = read_model_text(folder / kind)
    sample = Sample(temperatures=[0.5], length=300, prompt=None, seed=0)
    report = Report(weights="final", weights_dtype=dtype, weights_limit=20)
    return make_writer(report, sample, text, [0], lambda epoch: (options, weights))


def page_of(writer: Writer, samples: Sequence[str] = ("a", "b")) -> str:
    """A page whose other content does not matter."""
    row = {
        "temperature": "0.5",
        "known_words": "0.5",
        "novelty_8": "0",
        "longest_copy": "3",
        "distinct_3": "1",
    }
    return render(
        read_params(ROOT / "params.yaml"),
        [{"epoch": at, "temperature": 0.5, "prompt": "", "text": text} for at, text in enumerate(samples)],
        [row | {"epoch": str(at)} for at in range(len(samples))],
        [{"loss": 1.0, "bits_per_char": 1.4}] * len(samples),
        {"corpus": "made up", "characters": 5, "vocab_size": 3, "windows": 2}
        | {"validation_windows": 0, "test_windows": 0},
        None,
        "CPU, float32",
        None,
        {"start": 0, "text": "abc", "bits": [1.0, 2.0, 3.0], "ngram": None},
        writer,
    )


if __name__ == "__main__":
    make(Path(sys.argv[1]))
