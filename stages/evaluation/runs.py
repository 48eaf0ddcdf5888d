"""Finished runs: what the workspace, a git revision or an experiment of DVC has, without checking it out."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import md5
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import StageError
from stages.common.history import Metrics, history_of
from stages.common.params import PARAMS_FILE, as_text
from stages.common.paths import BASELINE_FILE, CORPUS_METRICS, LOSSES_FILE, QUALITY_FILE, SAMPLES_FILE
from stages.evaluation.ngram import best_of
from stages.text.samples import Sample, samples_of

WORKSPACE = "workspace"  # DVC's name for it
LOCK_FILE = Path("dvc.lock")
SECTIONS = {  # of params.yaml, and the stage whose results each decides
    "download": "download",
    "vectorize": "vectorize",
    "model": "train",
    "train": "train",
    "sample": "sample",
}


@dataclass(frozen=True)
class Run:
    """What a page shows of a run.

    Attributes:
        name: of the experiment or revision; of several that have the same results, all.
        params: the parameters by dotted name, as text.
        corpus: the name of the corpus.
        targets: `train.targets`.
        history: the metrics of each epoch.
        ngram: the best n-gram model, None without a validation split.
        quality: rows of `metrics/quality.tsv`.
        samples: rows of `metrics/samples.jsonl`.
    """

    name: str
    params: dict[str, str]
    corpus: str
    targets: str
    history: list[Metrics]
    ngram: Metrics | None
    quality: list[dict[str, str]]
    samples: list[Sample]


def read_runs(names: list[str]) -> list[Run]:
    """Read several runs; those with the same parameters and results become one.

    Args:
        names: experiments as `dvc exp show` names them, git revisions, or `workspace`.

    Returns:
        The runs, in this order.

    Raises:
        StageError: there is no such run, a file of it is missing or of another version, or its results are
            of different runs.
    """
    runs: list[Run] = []
    for name in dict.fromkeys(names):
        run = read_run(name)
        same = next((at for at, other in enumerate(runs) if replace(other, name=name) == run), None)
        if same is None:
            runs.append(run)
        else:
            runs[same] = replace(run, name=f"{runs[same].name} = {name}")
    return runs


def read_run(name: str) -> Run:
    """Read a run; arguments and errors as for `read_runs`."""
    read = _in_the_workspace if name == WORKSPACE else _in_a_revision(name)
    try:
        corpus = json.loads(read(CORPUS_METRICS))["corpus"]
        params, lock = (YAML(typ="safe", pure=True).load(read(path)) for path in (PARAMS_FILE, LOCK_FILE))
        params.pop("report", None)  # has no influence on what is compared
        stages = lock["stages"]
        losses = read(LOSSES_FILE)
        made = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
        # while a run goes on, the losses are not those of the lock, and only the file has the parameters
        if md5(losses.encode(), usedforsecurity=False).hexdigest() == made[str(LOSSES_FILE)]:
            used = [dep for stage in ("vectorize", "train", "sample") for dep in stages[stage]["deps"]]
            if any(made.get(dep["path"], dep["md5"]) != dep["md5"] for dep in used):  # not all stages ran
                raise StageError(
                    f"{name}: its results are of different runs; run all stages, with `dvc repro` or "
                    "`dvc exp run` without a target"
                )
            for section, stage in SECTIONS.items():
                params[section] = stages[stage]["params"][str(PARAMS_FILE)][section]
        targets = params["train"].get("targets", "last")
        return Run(
            name=name,
            params=as_text(params),
            corpus=corpus,
            targets=targets,
            history=history_of(losses, targets),
            ngram=best_of(read(BASELINE_FILE)),
            quality=list(csv.DictReader(read(QUALITY_FILE).splitlines(), delimiter="\t")),
            samples=samples_of(read(SAMPLES_FILE)),
        )
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise StageError(
            f"{name}: its results are not ones that this version reads ({kind}: {error})"
        ) from None


def _in_the_workspace(path: Path) -> str:
    """Read a file as it is on the disk."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StageError(
            f"{WORKSPACE}: {path} is missing; `dvc repro` creates it, --no-workspace leaves the workspace out"
        ) from None


def _in_a_revision(name: str) -> Callable[[Path], str]:
    """Create a function that reads a file of a revision, from git or from DVC's cache."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import RevError

    files: Any = DVCFileSystem(rev=name)

    def read(path: Path) -> str:
        try:
            return files.read_text(path.as_posix(), encoding="utf-8")
        except RevError:
            raise StageError(
                f"{name}: there is no such experiment or git revision; `dvc exp show` lists the experiments"
            ) from None
        except FileNotFoundError:
            raise StageError(
                f"{name}: {path} is neither in git nor in DVC's cache; run it with `dvc exp run`, or "
                "fetch it with `dvc exp pull` or `dvc fetch --all-commits`"
            ) from None
        except DvcException as error:
            raise StageError(f"{name}: {error}") from None

    return read
