"""Stage `sample`: text from every epoch's snapshot, at every temperature.

What the article's loop prints after each epoch, apart from training, so that a new temperature costs
seconds.
"""

import json
from pathlib import Path
from typing import Any

from stages.errors import StageError, run_stage
from stages.files import write_bytes_whole
from stages.layout import EPOCHS_DIR, SAMPLE_METRICS, SAMPLES_DIR, SAMPLES_FILE
from stages.params import read_params
from stages.snapshots import DamagedSnapshot, Snapshot, epoch_files, read_snapshot
from stages.windows import first_window


def main() -> None:
    params = read_params().sample
    start, charset = first_window()
    files = epoch_files()
    if not files:
        raise StageError(f"{EPOCHS_DIR} has no snapshots; `dvc repro train` makes them")
    first = snapshot_of(files[0], len(charset))
    # TensorFlow takes seconds to import, so what is wrong with the above is said before it
    from stages.device import set_up_tensorflow
    from stages.generator import Generator, encode_prompt, uniform_draws
    from stages.model import build_model

    set_up_tensorflow("cpu")  # so that samples do not depend on the device
    prompt = start if params.prompt is None else params.prompt
    indices = encode_prompt(prompt, charset, first.model["maxlen"])
    model = build_model(**first.model)
    generator = Generator(model, params.temperatures, params.length)

    lines = []
    for path in files:
        snapshot = snapshot_of(path, len(charset))
        model.set_weights(snapshot.weights)
        draws = uniform_draws(params.seed, snapshot.epoch, params.temperatures, params.length)
        texts = ["".join(charset[i] for i in row) for row in generator(indices, draws)]
        samples: list[dict[str, Any]] = [
            {"epoch": snapshot.epoch, "temperature": temperature, "prompt": prompt, "text": text}
            for temperature, text in zip(params.temperatures, texts, strict=True)
        ]
        lines += [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
        page = SAMPLES_DIR / f"{path.stem}.txt"
        write_bytes_whole(page, as_the_article_prints(samples, snapshot.figures["loss"]).encode())
    write_bytes_whole(SAMPLES_FILE, "".join(lines).encode())
    figures = {
        "epoch": snapshot.epoch,
        "distinct_trigrams": {
            f"temperature {sample['temperature']}": distinct_trigrams(sample["text"])
            for sample in samples
        },
    }
    write_bytes_whole(SAMPLE_METRICS, (json.dumps(figures, indent=2) + "\n").encode())
    print(
        f"{len(files)} epochs, {len(lines)} samples of {params.length} characters: "
        f"{SAMPLES_FILE}, {SAMPLES_DIR}"
    )


def snapshot_of(path: Path, charset: int) -> Snapshot:
    """A snapshot that goes with the windows. Raises StageError for a damaged or foreign one."""
    try:
        snapshot = read_snapshot(path)
    except DamagedSnapshot as error:
        raise StageError(f"{path}: {error}; `dvc repro --force train` makes it anew") from None
    if snapshot.model["charset"] != charset:
        raise StageError(
            f"{path} is of a model of {snapshot.model['charset']} characters, the windows have "
            f"{charset}; `dvc repro train` makes one that fits"
        )
    return snapshot


def as_the_article_prints(samples: list[dict[str, Any]], loss: float) -> str:
    """One epoch's samples, laid out as in the article."""
    lines = [f"epoch: {samples[0]['epoch']}", f"loss: {loss:.4f}"]
    for sample in samples:
        lines += [
            f"temperature: {sample['temperature']}",
            f"Generating with seed: {sample['prompt']}",
            f"GENERATED:{sample['text']}",
        ]
    return "\n".join(lines) + "\n"


def distinct_trigrams(text: str) -> float:
    """Share of a text's runs of three characters that are different ones; 1 for a shorter text."""
    trigrams = [text[i : i + 3] for i in range(len(text) - 2)]
    return round(len(set(trigrams)) / len(trigrams), 4) if trigrams else 1.0


if __name__ == "__main__":
    run_stage(main)
