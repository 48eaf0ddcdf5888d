"""Generated samples: the rows of `metrics/samples.jsonl`, and the layout of the article."""

import json
from collections.abc import Sequence
from typing import Any

from stages.common.files import read_output
from stages.common.paths import SAMPLES_FILE

Sample = dict[str, Any]  # epoch, temperature, prompt, text


def read_samples() -> list[Sample]:
    """Read `metrics/samples.jsonl`.

    Returns:
        The samples.

    Raises:
        StageError: the file is missing.
    """
    return samples_of(read_output(SAMPLES_FILE, "sample"))


def samples_of(lines: str) -> list[Sample]:
    """Read what `lines_of` wrote."""
    # not splitlines: JSON leaves U+0085, U+2028 and U+2029 as they are, and these are line ends to it
    return [json.loads(line) for line in lines.split("\n") if line]


def lines_of(samples: Sequence[Sample]) -> str:
    """Write samples as JSON, one per line."""
    return "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)


def as_the_article_prints(samples: Sequence[Sample], loss: float) -> str:
    """Lay out the samples of one epoch as the article prints them.

    Args:
        samples: of one epoch, at least one.
        loss: of that epoch.

    Returns:
        The text.
    """
    lines = [f"epoch: {samples[0]['epoch']}", f"loss: {loss:.4f}"]
    for sample in samples:
        lines += [
            f"temperature: {sample['temperature']}",
            f"Generating with seed: {sample['prompt']}",
            f"GENERATED:{sample['text']}",
        ]
    return "\n".join(lines) + "\n"
