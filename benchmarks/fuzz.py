"""The whole pipeline on random parameter files and texts: `python -m benchmarks.fuzz`.

Each case either runs through all stages, with files that parse and a page with the same samples, or a stage
ends with exit code 1 and one line, and nothing that existed is changed. The rest is printed with the case's
name, which `--only` repeats. The exit code is 1 if there is any.
"""

import collections
import csv
import importlib
import json
import math
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import vl_convert
import yaml
from tqdm import tqdm

from benchmarks.fuzz_cases import KINDS, SMALL, Case, make_case
from stages.common import paths
from stages.common.cli import Parser, whole_number
from stages.common.errors import run_stage
from tests.support import ROOT, changed_params

STAGES = ("check", "download", "vectorize", "baseline", "train", "sample", "report")
IMPORTS = (
    "stages.training.device",
    "stages.training.loop",
    "stages.model.generator",
    "dvc.repo",
)
SECONDS = 120  # that a stage may take
FORK = multiprocessing.get_context("fork")  # each stage in a process of its own that need not import


def run(stage: str, folder: Path) -> None:
    """Run a stage in this process, its output in files beside the folder."""
    os.chdir(folder)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = [stage]  # a stage gets no arguments
    run_stage(importlib.import_module(f"stages.{stage}").main)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and its content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def verdict(case: Case, folder: Path) -> tuple[str, str]:
    """Run a case in a folder with the outputs of an earlier run. Returns its outcome and what is wrong."""
    (folder / "params.yaml").write_bytes(case.params)
    (folder / "corpora/book.txt").write_bytes(case.text)
    began = time.time_ns()
    for stage in STAGES:
        before = contents(folder)
        process = FORK.Process(target=run, args=(stage, folder))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            return "too slow", f"{stage} took more than {SECONDS} s"
        said = folder.with_suffix(".stderr").read_text(encoding="utf-8", errors="surrogateescape")
        if process.exitcode:
            after = contents(folder)
            # a training that began replaces the files of the last one, which the store keeps
            replaced = ("models/checkpoints/", "models/vocabulary.json", "metrics/train/") * (
                stage == "train"
            )
            lost = [n for n in before if not n.startswith(replaced) and after.get(n) != before[n]]
            return refusal(case, stage, process.exitcode, said, lost)
        if "Traceback" in said:
            return "a traceback", said
    wrong = [f"{case.wrong} was accepted"] * bool(case.wrong) + [*mistakes(folder, began)]
    return "all stages finished", "; ".join(wrong)


def refusal(case: Case, stage: str, code: int, said: str, lost: list[str]) -> tuple[str, str]:
    """Judge the end of a stage that failed."""
    alike = re.sub(r"got .*?;|'.*?'|0x\w+|[0-9a-f]{64}|[\d.,]+", "…", said.removeprefix("error: "))
    outcome = f"{stage}: {alike[:60].strip()}"
    if case.wrong:
        outcome = "a wrong value is refused"
    named = said.startswith(f"error: params.yaml: {case.wrong}")
    if code != 1 or not said.startswith("error: ") or said.count("\n") != 1 or len(said.splitlines()) != 1:
        return outcome, f"{stage}: exit code {code}, stderr {said!r}"
    if lost:
        return outcome, f"{stage} changed {lost}"
    if bool(case.wrong) != named:
        return outcome, f"{stage}: expected {case.wrong or 'no parameter'} to be refused, stderr {said!r}"
    return outcome, ""


def strict(text: str) -> Any:
    """JSON without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def mistakes(folder: Path, began: int) -> list[str]:
    """What is wrong with the outputs of a run that finished; none may be older than the run."""
    found = []
    for path in [value for value in vars(paths).values() if isinstance(value, Path)]:
        if not (folder / path).exists() or ((folder / path).stat().st_mtime_ns < began and path.suffix):
            found.append(f"{path} was not written")
    for path in sorted((folder / "metrics").rglob("*.*")):
        try:
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".tsv":
                require_numbers(text)
            elif path.suffix in (".json", ".jsonl"):
                [strict(line) for line in (text.split("\n")[:-1] if path.suffix == ".jsonl" else [text])]
            elif path.suffix == ".html":
                require_samples(text, (folder / paths.SAMPLES_FILE).read_text(encoding="utf-8"))
        except (ValueError, KeyError, StopIteration) as error:
            found.append(f"{path.relative_to(folder)}: {error!r}")
    return found


def require_numbers(table: str) -> None:
    """Raise ValueError unless a table is rectangular and every value but `part` is a finite number."""
    header, *rows = csv.reader(table.split("\n")[:-1], delimiter="\t", quoting=csv.QUOTE_NONE)
    for row in rows:
        for name, value in zip(header, row, strict=True):
            if name != "part" and not math.isfinite(float(value)):
                raise ValueError(f"{name}: {value}")


def require_samples(page: str, samples: str) -> None:
    """Raise ValueError unless the page's data are JSON and hold exactly the samples."""
    data, _ = (
        strict(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
        for name in ("data", "charts")
    )
    shown = [(s["prompt"], s["text"]) for of_temperature in data["samples"] for s in of_temperature]
    lines = [strict(line) for line in samples.split("\n")[:-1]]
    if sorted(shown) != sorted((line["prompt"], line["text"]) for line in lines):
        raise ValueError("other samples than those of metrics/samples.jsonl")


def judge(seed: int, kind: str, number: int, template: Path) -> tuple[str, str, str]:
    """Run one case in a copy of the template. Returns the case's name, its outcome and what is wrong."""
    case = make_case(seed, kind, number)
    with tempfile.TemporaryDirectory(dir=template.parent) as scratch:
        folder = Path(scratch, "project")
        shutil.copytree(template, folder)
        outcome, wrong = verdict(case, folder)
    details = f"{wrong}\n{case.params.decode()}text: {case.text!r}" if wrong else ""
    return case.name, outcome, details


def main() -> None:
    """Run the cases and print a table of outcomes."""
    parser = Parser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument(
        "--parameters", type=whole_number(0, 10**6), default=300, help="random parameter files (300)"
    )
    parser.add_argument("--texts", type=whole_number(0, 10**6), default=100, help="random texts (100)")
    parser.add_argument("--seed", type=whole_number(0, 2**31), default=0, help="of all random draws (0)")
    parser.add_argument("--only", metavar="KIND:N", help="one case, for example texts:7")
    options = parser.parse_args()
    counts = zip(KINDS, (options.parameters, options.texts), strict=True)
    cases = [(kind, number) for kind, count in counts for number in range(count)]
    if options.only:
        kind, number = options.only.split(":")
        cases = [(kind, int(number))]
    os.environ["PYTHONPATH"] = str(ROOT)  # of workers
    for module in IMPORTS:  # once, before the processes fork; TensorFlow computes nothing yet
        importlib.import_module(module)
    with ProcessPoolExecutor(1, FORK) as pool:  # seconds in each report otherwise, and always the same
        javascript = pool.submit(vl_convert.javascript_bundle).result()  # type: ignore[call-arg]
    vl_convert.javascript_bundle = lambda *_: javascript  # type: ignore[misc,assignment]
    outcomes: collections.Counter[str] = collections.Counter()
    failures = 0
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(os.cpu_count(), FORK) as pool:
        template = Path(scratch, "template")
        (template / "corpora").mkdir(parents=True)
        first = Case("first", yaml.safe_dump(changed_params(**SMALL)).encode(), b"Ba di ko. " * 40)
        if (result := verdict(first, template)) != ("all stages finished", ""):
            sys.exit(f"the first run: {result}")
        futures = [pool.submit(judge, options.seed, *case, template) for case in cases]
        for future in tqdm(as_completed(futures), total=len(futures), unit=" cases", disable=None):
            name, outcome, wrong = future.result()
            outcomes[f"FAILED: {outcome}" if wrong else outcome] += 1
            if wrong:
                failures += 1
                print(f"--only {name} --seed {options.seed}: {outcome}: {wrong}\n", flush=True)
    print("| cases | outcome |\n| ---: | --- |")
    for outcome, count in outcomes.most_common():
        print(f"| {count} | {outcome} |")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
