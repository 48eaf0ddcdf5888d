"""The fingerprint of a training run: everything that a weight depends on, and nothing else.

Of the code, that is the meaning of the numeric modules: their syntax trees without comments, docstrings,
formatting, file names and the texts of errors. So a reworded comment or a moved file costs no training run,
and a changed formula, constant or call never reuses an old checkpoint.
"""

import ast
import functools
import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stages.common.files import sha256_of
from stages.common.params import Params
from stages.training.initial_weights import file_of
from stages.training.machine import gpus, kernel_switches, processor

ROOT = Path(__file__).parents[2]
# numeric code is what these modules import, directly or through others, and they themselves
ENTRIES = (
    "stages/text/windows_file.py",
    "stages/training/checkpoints.py",
    "stages/training/device.py",
    "stages/training/trainer.py",
)
# cannot change a weight once the windows' hash and the parameters are in the fingerprint
WITHOUT_INFLUENCE = {
    "stages/common/combinations.py",
    "stages/common/errors.py",
    "stages/common/files.py",
    "stages/common/history.py",
    "stages/common/params.py",
    "stages/common/paths.py",
    "stages/common/schema.py",
    "stages/common/stderr.py",
    "stages/model/export.py",
    "stages/model/generator.py",
    "stages/text/normalization.py",
    "stages/text/vocabulary.py",
    "stages/text/vocabulary_file.py",
    "stages/text/windows.py",
    "stages/training/failures.py",
    "stages/training/cuda.py",
}
PARAMETERS_WITHOUT_INFLUENCE = {
    *("epochs", "device", "cores", "workers", "worker_timeout", "keep", "patience", "preview"),
    "init_from",  # its file's hash counts, wherever the file is
}


def fingerprint_inputs(
    params: Params, device: str, windows_sha256: str, processes: int = 1
) -> dict[str, Any]:
    """Collect everything that the weights depend on.

    The number of epochs is not part of it, so a run can be extended; nor are cores and, on a CPU, workers,
    nor parameters that the device or the schedule does not use.

    Args:
        params: all parameters.
        device: cpu or gpu.
        windows_sha256: SHA-256 of `data/windows.npz`.
        processes: that train together. On GPUs another number sums and draws in another order.

    Returns:
        A tree for JSON.
    """
    unused = {"decay", "decay_epochs"} if params.train.schedule == "constant" else set()
    unused.add("microbatches" if device == "gpu" else "use_cudnn")
    initial = file_of(params.train.init_from)
    return {
        "windows": windows_sha256,
        "initial_weights": sha256_of(initial) if initial else "",
        "model": params.model.model_dump(),
        "train": params.train.model_dump(exclude=PARAMETERS_WITHOUT_INFLUENCE | unused),
        "device": f"{processes} x gpu" if device == "gpu" else device,
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": gpus() if device == "gpu" else processor(),
        "environment": kernel_switches(),
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__},
        "code": code_digests(),
    }


def fingerprint(inputs: dict[str, Any]) -> str:
    """Hash fingerprint inputs, without the names of modules, so that a file can move."""
    without_names = inputs | {"code": sorted(inputs["code"].values())}
    return hashlib.sha256(json.dumps(without_names, sort_keys=True).encode()).hexdigest()


def code_digests(root: Path = ROOT) -> dict[str, str]:
    """Hash the meaning of each numeric module.

    Args:
        root: the project's root.

    Returns:
        SHA-256 of the module's syntax tree, by the module's dotted name.
    """
    digests: dict[str, str] = {}
    pending = list(ENTRIES)
    while pending:
        name = pending.pop()
        if name not in digests and name not in WITHOUT_INFLUENCE:
            digests[name], imported = _digest_and_imports((root / name).read_bytes())
            pending += [path for path in imported if (root / path).is_file()]
    return {name.removesuffix(".py").replace("/", "."): digest for name, digest in sorted(digests.items())}


@functools.cache  # the tests ask for many copies that differ in one module
def _digest_and_imports(source: bytes) -> tuple[str, tuple[str, ...]]:
    """Hash the meaning of a module, and list the paths of what it may import from this project."""
    tree = ast.parse(source)
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    paths = tuple(f"{name.replace('.', '/')}.py" for name in names if name.startswith("stages."))
    return hashlib.sha256(_meaning(tree).encode()).hexdigest(), paths


def _meaning(node: Any) -> str:
    """Write a syntax tree as text, without what cannot change a number.

    Left out are positions, docstrings, the texts of errors, and where in this project a name is
    imported from. Empty fields are left out too, since each version of Python adds some.
    """
    if isinstance(node, list):
        return "[" + ",".join(map(_meaning, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Raise):
        return "Raise"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "StageError":
        return "StageError"  # made for a raise elsewhere
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stages."):
        fields.pop("module")
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            fields["body"] = node.body[1:]
    written = (f"{name}={_meaning(value)}" for name, value in fields.items() if value not in (None, []))
    return f"{type(node).__name__}({','.join(written)})"
