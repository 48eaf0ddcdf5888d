"""The project's structure: which folder imports which, what `dvc.yaml` lists, what may be committed."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from stages.common.combinations import require_fitting
from stages.common.params import Params, read_params
from stages.common.recipes import apply_recipe, names, options_of, read_recipe
from tests.support import ROOT

STAGES = ["check", "download", "vectorize", "baseline", "train", "sample", "report"]
FOLDERS = ["common", "text", "model", "evaluation", "distributed", "training"]  # from the ground up
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "stages").rglob("*.py"))

# data, parameters, outputs, metrics and plots of each stage
CONTRACTS: dict[str, dict[str, set[str]]] = {
    "check": {
        "data": {"params.yaml", "corpora", "initial"},
        "params": set(),
        "outs": {"data/corpus_files.json", "data/initial_files.json"},
    },
    "download": {
        "data": {"data/corpus_files.json"},
        "params": {"download"},
        "outs": {"data/corpus.txt"},
        "metrics": {"metrics/corpus.json"},
    },
    "vectorize": {
        "data": {"data/corpus.txt"},
        "params": {"vectorize"},
        "outs": {"data/windows.npz", "metrics/windows.json"},
    },
    "baseline": {
        "data": {"data/corpus.txt"},
        "params": {"vectorize"},
        "plots": {"metrics/baseline.tsv"},
    },
    "train": {
        "data": {"data/windows.npz", "data/initial_files.json"},
        "params": {"vectorize.lowercase", "vectorize.newlines_to_spaces", "model", "train"},
        "outs": {
            "models/checkpoints",
            "models/model.keras",
            "models/vocabulary.json",
            "metrics/train/device.json",
        },
        "metrics": {"metrics/train/metrics.json"},
        "plots": {"metrics/train/losses.tsv"},
    },
    "sample": {
        "data": {
            "data/corpus.txt",
            "metrics/baseline.tsv",
            "models/checkpoints",
            "models/model.keras",
            "models/vocabulary.json",
        },
        "params": {"vectorize", "sample"},
        "outs": {"metrics/samples", "metrics/samples.jsonl", "metrics/score.json"},
        "plots": {"metrics/quality.tsv"},
    },
    "report": {
        "data": {
            "metrics/baseline.tsv",
            "metrics/corpus.json",
            "metrics/quality.tsv",
            "metrics/samples.jsonl",
            "metrics/score.json",
            "metrics/train",
            "metrics/windows.json",
            "models/checkpoints",
            "models/vocabulary.json",
            "params.yaml",
        },
        "params": set(),
        "outs": {"metrics/report.html"},
    },
}


def imports_of(path: str) -> set[str]:
    """The project's modules that a file imports itself, wherever in the file the statement stands."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stages"):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    paths = {f"{name.replace('.', '/')}.py" for name in found}
    return {path for path in paths if (ROOT / path).is_file()}


def all_imports_of(path: str) -> set[str]:
    """The same, directly or through others."""
    found: set[str] = set()
    pending = {path}
    while pending:
        found |= pending
        pending = {other for each in pending for other in imports_of(each)} - found
    return found - {path}


def tracked() -> list[str]:
    """The files that git knows."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for path in listed.stdout.splitlines() if (ROOT / path).exists()]


def pipeline() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_stages_data_its_file_and_the_folders_it_imports(stage):
    imported = {str(Path(path).parent) for path in all_imports_of(f"stages/{stage}.py")}
    expected = {f"stages/{stage}.py", *imported, *CONTRACTS[stage]["data"]}
    assert set(pipeline()[stage]["deps"]) == expected
    assert len(pipeline()[stage]["deps"]) == len(expected)
    assert pipeline()[stage]["cmd"] == f"python -m stages.{stage}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_exactly_the_parameters_and_outputs_of_its_contract(stage):
    about = pipeline()[stage]
    assert set(about.get("params", [])) == CONTRACTS[stage]["params"]
    for kind in ("outs", "metrics", "plots"):
        listed = set(_outs({kind: about.get(kind, [])}))
        assert listed == CONTRACTS[stage].get(kind, set()), kind


def test_no_stage_reads_what_a_later_one_writes():
    assert list(pipeline()) == STAGES == list(CONTRACTS)
    kinds = ("outs", "metrics", "plots")
    outs = {
        stage: set().union(*(about.get(kind, set()) for kind in kinds)) for stage, about in CONTRACTS.items()
    }
    written = {"params.yaml", "corpora", "initial"}
    for stage, contract in CONTRACTS.items():
        for path in contract["data"] - written:  # a folder of outputs, all of earlier stages
            inside = {out for out in set().union(*outs.values()) if Path(path) in Path(out).parents}
            assert inside, path
            assert inside <= written, path
        written |= outs[stage]


@pytest.mark.parametrize("path", MODULES)
def test_a_folder_imports_only_folders_below_it(path):
    folder = Path(path).parent.name
    for imported in imports_of(path):
        below = Path(imported).parent.name
        if folder == "stages":
            assert below in FOLDERS, f"{path} is run, and imports {imported}, which is run too"
        else:
            assert FOLDERS.index(below) <= FOLDERS.index(folder), f"{path} imports {imported}"


def test_the_folders_are_those_of_the_design():
    assert {str(Path(path).parent) for path in MODULES} == {"stages", *(f"stages/{f}" for f in FOLDERS)}
    assert len([path for path in MODULES if Path(path).parent.name == "stages"]) <= 15
    for init in (path for path in MODULES if path.endswith("__init__.py")):
        # not among the deps of a stage, so it must not hold code
        assert [type(node) for node in ast.parse((ROOT / init).read_text()).body] == [ast.Expr], init


@pytest.mark.parametrize("path", MODULES)
def test_no_module_has_more_than_300_lines(path):
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= 300


# also within identifiers, or as words of their own
REPLACED = r"snapshot|charset|held[-_ ]out|\b(knob|crew|chief|figure|stream)s?\b|sent home"
WORDS_OF_OTHERS = {
    "stages/distributed/cluster.py": {"chief"},  # TensorFlow's
    "tests/unit/distributed/test_cluster.py": {"chief"},
    "stages/evaluation/report.html.j2": {"charset", "figure"},  # HTML's
    "stages/evaluation/compare.html.j2": {"figure"},
    "stages/common/params.py": {"streams"},  # former names are answered with the present ones
    "stages/text/web.py": {"stream"},  # requests'
    "tests/unit/common/test_params.py": {"streams"},
    "tests/unit/common/test_recipes.py": {"streams"},
    "tests/end_to_end/test_report.py": {"figure"},  # HTML's
}


def test_the_words_are_those_of_the_field():
    """Names that were replaced do not come back."""
    suffixes = (".py", ".md", ".yaml", ".j2", ".toml", "Makefile")
    itself = Path(__file__).relative_to(ROOT).as_posix()
    for path in tracked():
        if path.endswith(suffixes) and path not in (itself, "CHANGELOG.md"):
            text = (ROOT / path).read_text(encoding="utf-8")
            found = {word.group().lower() for word in re.finditer(REPLACED, text, re.IGNORECASE)}
            assert found <= WORDS_OF_OTHERS.get(path, set()), path


def test_the_documents_name_every_module():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for path in map(Path, MODULES):
        if path.name != "__init__.py":
            assert f"`{path.stem}`" in text or f"stages.{path.stem}`" in text, path


def test_the_committed_results_belong_to_this_pipeline():
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    assert set(lock) == set(STAGES)
    for stage, about in pipeline().items():
        for kind in ("deps", "outs"):
            listed = about[kind] if kind == "deps" else [*_outs(about)]
            assert {dep["path"] for dep in lock[stage][kind]} == set(listed)


def _outs(about: dict) -> list[str]:
    kinds = (about.get(kind, []) for kind in ("outs", "metrics", "plots"))
    return [out if isinstance(out, str) else next(iter(out)) for outs in kinds for out in outs]


def test_recipes_are_valid_and_the_article_is_the_default():
    default = read_params(ROOT / "params.yaml")
    applied = {}
    for name in names():
        recipe = read_recipe(name)
        applied[name] = apply_recipe(recipe, Path(name))
        tree: dict = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        for option in options_of(recipe)[1::2]:  # what `dvc exp run` will make of it
            key, value = option.split("=")
            section, parameter = key.split(".")
            tree[section][parameter] = yaml.safe_load(value)
        assert Params.model_validate(tree) == applied[name] != default
        assert recipe.about.endswith(".")
    # -S stays in params.yaml, so a recipe may leave nothing to the one that ran before
    parameters = {
        name: [option.split("=")[0] for option in options_of(read_recipe(name))[1::2]] for name in names()
    }
    assert all(each == parameters["article"] for each in parameters.values())
    assert set(applied) == {"article", "best", "good", "quick"}
    for each in applied.values():
        require_fitting(each, "cpu")
    assert {each.vectorize.validation for each in applied.values()} == {0.1}
    assert (applied["article"].train, applied["article"].model) == (default.train, default.model)


def test_no_corpus_no_model_and_no_index_address_is_committed():
    paths = tracked()
    assert "dvc.yaml" in paths
    assert not [p for p in paths if p.startswith(("data/", "models/")) and not p.endswith(".gitignore")]
    assert all(path.endswith(".yaml") for path in paths if path.startswith("corpora/"))
    assert [path for path in paths if path.startswith("initial/")] == ["initial/random"]
    requirements = [path for path in paths if path.startswith("requirements")]
    assert len(requirements) == 6
    for path in requirements:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert "://" not in text
        assert "--index" not in text


def test_the_packages_for_a_gpu_are_the_others_and_nvidias():
    plain, gpu = (
        {line.split()[0] for line in (ROOT / path).read_text().splitlines() if "==" in line}
        for path in ("requirements.txt", "requirements/gpu.txt")
    )
    assert plain < gpu
    assert all(line.startswith("nvidia-") for line in gpu - plain)
