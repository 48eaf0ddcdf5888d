"""How fast and how exactly the model writes in the workspace's page, in headless Chromium.

    python -m benchmarks.page [--length N] [--turns N]

It presses Write, and while the text comes moves the slider of the epoch. The output is a line for each turn:
characters a second, and the longest task of the page's own thread (the browser reports those above 50 ms).
Then the largest differences from Keras in float64, on windows of the text that the model wrote: Keras's own
in float32, and the page's.
"""

import time

import numpy as np

import stages.training.device  # noqa: F401, first: it imports TensorFlow without its messages
from benchmarks.measure import machine
from stages.common.cli import Parser, whole_number
from stages.common.errors import run_stage
from stages.common.paths import MODELS_DIR, REPORT_FILE
from stages.evaluation.page import FOLDER
from stages.evaluation.writer import encode_weights
from stages.text.samples import read_samples
from stages.text.vocabulary_file import read_model_text
from stages.training.checkpoints import checkpoint_files, fitting_checkpoint
from tests.browser import browser, open_page

BEGIN = """
window.tasks = [];
const note = (list) => tasks.push(...list.getEntries().map((task) => task.duration));
new PerformanceObserver(note).observe({ type: "longtask" });
document.getElementById("length").value = arguments[0];
document.getElementById("write-form").requestSubmit();
"""
MOVE = """
const slider = document.getElementById("epoch");
slider.value = arguments[0];
slider.dispatchEvent(new Event("input"));
return document.getElementById("write-status").textContent;
"""

LOGITS = """
const [settings, weights, dtype, windows] = arguments;
const model = new Model(settings, new WeightReader(weights, dtype));
return windows.map((window) => {
  const reader = new Reader(model, window.length);
  window.forEach((character) => reader.feed(character));
  return [...reader.logits];
});
"""


def main() -> None:
    """Measure as the command line says."""
    parser = Parser(prog="python -m benchmarks.page")
    parser.add_argument(
        "--length", type=whole_number(1, 100_000), default=2000, help="characters (%(default)s)"
    )
    parser.add_argument("--turns", type=whole_number(1, 1000), default=5, help="(%(default)s)")
    options = parser.parse_args()
    print(machine())
    print(f"{REPORT_FILE}: {REPORT_FILE.stat().st_size / 1e6:.2f} MB")
    for _ in range(options.turns):
        with browser() as driver:
            open_page(driver, REPORT_FILE)
            time.sleep(1)  # tasks of the start are not meant
            driver.execute_script(BEGIN, options.length)
            status, at = "", 0
            while "a second" not in status:
                time.sleep(0.2)
                at += 1
                status = driver.execute_script(MOVE, at % 5)
            tasks = driver.execute_script("return tasks")
        print(f"{status} Tasks above 50 ms: {len(tasks)}, the longest {max(tasks, default=0):.0f} ms")
    differences()


def differences() -> None:
    """Print how far logits and probabilities are from those of Keras in float64 with the same weights."""
    import keras

    from stages.model.architecture import build_model

    text = read_model_text(MODELS_DIR)
    checkpoint = fitting_checkpoint([*checkpoint_files().values()][-1], text.vocabulary)
    written = [[text.vocabulary.index(c) for c in sample["text"]] for sample in read_samples()[-10:]]
    windows = [each[at : at + text.maxlen] for each in written for at in range(0, len(each), text.maxlen)]
    windows = [window for window in windows if len(window) == text.maxlen]
    logits = {}
    for floatx in ("float64", "float32"):
        keras.config.set_dtype_policy(floatx)
        model = build_model(**checkpoint.model)
        model.set_weights(checkpoint.weights)
        below = keras.Model(model.inputs, model.layers[-2].output)
        x = np.eye(len(text.vocabulary), dtype=floatx)[windows]
        kernel, bias = (weights.astype(floatx) for weights in checkpoint.weights[-2:])
        logits[floatx] = below.predict_on_batch(x) @ kernel + bias
    print_differences("Keras, float32", logits["float32"], logits["float64"])
    code = (FOLDER / "model.js").read_text(encoding="utf-8") + LOGITS
    settings = checkpoint.model | {"vocabulary": text.vocabulary}
    with browser() as driver:
        half = [weights.astype(np.float16) for weights in checkpoint.weights]
        for name, dtype, arrays in (
            ("float32", "float32", checkpoint.weights),
            ("int16", "int16", checkpoint.weights),
            ("weights rounded to float16", "float32", half),
        ):
            weights = encode_weights(arrays, dtype)
            found = np.array(driver.execute_script(code, settings, weights, dtype, windows))
            print_differences(f"the page, {name}", found, logits["float64"])


def print_differences(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Print the largest differences of logits and of probabilities."""
    shares = np.abs(softmax(found) - softmax(expected)).max()
    print(f"{name}: logits differ by {np.abs(found - expected).max():.2g}, probabilities by {shares:.2g}")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn rows of logits into probabilities."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    run_stage(main)
