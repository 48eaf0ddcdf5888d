"""The article's script, step by step, written anew for comparison, with a clock around each step.

    python -m benchmarks.article CORPUS EPOCHS

Nothing here is tuned: loops over characters, one-hot tensors of the whole text, `fit` an epoch at a
time, one `predict` for each generated character. Prints one line of JSON: seconds of each step, the
losses.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(corpus: str, epochs: int) -> None:
    started = time.perf_counter()
    import numpy as np
    import tensorflow as tf

    clock = {"import": time.perf_counter() - started, "vectorize": 0.0, "fit": 0.0, "generate": 0.0}

    began = time.perf_counter()
    with open(corpus, encoding="utf-8") as file:
        text = file.read().lower().replace("\n", " ")
    chars = sorted(set(text))
    index_of = {char: index for index, char in enumerate(chars)}
    maxlen, step = 40, 3
    windows, targets = [], []
    for start in range(0, len(text) - maxlen, step):
        windows.append(text[start : start + maxlen])
        targets.append(text[start + maxlen])
    x = np.zeros((len(windows), maxlen, len(chars)), dtype="bool")
    y = np.zeros((len(windows), len(chars)), dtype="bool")
    for i, window in enumerate(windows):
        for t, char in enumerate(window):
            x[i, t, index_of[char]] = 1
        y[i, index_of[targets[i]]] = 1
    clock["vectorize"] = time.perf_counter() - began

    model = tf.keras.Sequential(
        [
            tf.keras.Input(shape=(maxlen, len(chars))),
            tf.keras.layers.LSTM(128),
            tf.keras.layers.Dense(len(chars), activation="softmax"),
        ]
    )
    optimizer = tf.keras.optimizers.RMSprop(learning_rate=0.01)
    model.compile(loss=tf.keras.losses.CategoricalCrossentropy(), optimizer=optimizer)

    losses = []
    for _ in range(epochs):
        began = time.perf_counter()
        history = model.fit(x, y, batch_size=1024, epochs=1, verbose=0)
        losses.append(history.history["loss"][0])
        clock["fit"] += time.perf_counter() - began
        began = time.perf_counter()
        for temperature in (0.2, 0.5, 1.0, 1.2):
            window = text[:maxlen]
            for _ in range(400):
                hot = np.zeros((1, maxlen, len(chars)))
                for t, char in enumerate(window):
                    hot[0, t, index_of[char]] = 1.0
                p = model.predict(hot, verbose=0)[0].astype("float64")
                p = np.exp(np.log(p) / temperature)
                drawn = np.random.multinomial(1, p / p.sum() * (1 - 1e-12)).argmax()
                window = window[1:] + chars[drawn]
        clock["generate"] += time.perf_counter() - began
    print(json.dumps({"seconds": clock, "losses": losses}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
