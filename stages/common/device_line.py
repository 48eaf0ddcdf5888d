"""The line that names the device of a training run."""

from collections import Counter
from typing import Any


def device_line(facts: dict[str, Any], cores: int | None = None) -> str:
    """Write the facts about a device, and a warning if it does not repeat its results, as one line.

    Args:
        facts: the tree of `metrics/train/device.json`.
        cores: how many a CPU run uses; None leaves them out.

    Returns:
        For example "NVIDIA H100 80GB HBM3, 79 GiB, cuDNN 9.3.0, CUDA 12.5, float32".
    """
    if facts["device"] == "cpu":
        used = [f"{cores} core{'s' * (cores > 1)}"] if cores else []
        reason = f"; no GPU: {facts['no_gpu']}" if facts["no_gpu"] else ""
        return ", ".join(["CPU", *used, facts["precision"]]) + reason
    kinds = Counter(facts["names"]).items()
    parts = [f"{count} × {name}" if count > 1 else name for name, count in kinds]
    if facts["memory"]:
        each = " each" if facts["gpus"] > 1 else ""
        parts.append(f"{facts['memory'] / 2**30:.0f} GiB{each}")
    parts += [f"cuDNN {facts['cudnn']}", f"CUDA {facts['cuda']}", facts["precision"]]
    return ", ".join(parts) + ("; not reproducible" if facts["reproducible"] is False else "")
