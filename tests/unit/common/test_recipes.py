"""Recipes: files with a sentence and parameters, as options of `dvc exp run`."""

import shutil
import subprocess
import sys

import pytest

from stages.common.errors import StageError
from stages.common.params import Model, Train
from stages.common.recipes import Recipe, options_of, read_recipe
from tests.support import ROOT


def test_options_are_what_a_shell_passes_on():
    recipe = Recipe(about="A.", params={"train": {"epochs": 3, "patience": None}, "model": {"cell": "gru"}})
    assert options_of(recipe) == [
        *("-S", "train.epochs=3"),
        *("-S", "train.patience=null"),
        *("-S", "model.cell=gru"),
    ]
    lists = Recipe(about="A.", params={"sample": {"temperatures": [0.5, 1.0]}})
    assert options_of(lists) == ["-S", "sample.temperatures=[0.5,1.0]"]


@pytest.mark.parametrize(
    "value", ["two words", "", "null", "3", "a,b", "it's", "*.txt", "a=b", "a#b", "ä", "${x}"]
)
def test_a_value_that_a_shell_or_yaml_would_change_is_refused(value):
    recipe = Recipe(about="A.", params={"sample": {"prompt": value}})
    with pytest.raises(StageError, match=r"sample\.prompt: got .*; a recipe takes numbers, true, false"):
        options_of(recipe)


def test_the_command_lists_prints_and_names_what_is_wrong():
    def run(*arguments):
        command = [sys.executable, "-m", "stages.recipe", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    listed = run().stdout.splitlines()
    assert f"quick: {read_recipe('quick').about}" in listed
    assert run("quick").stdout.split() == options_of(read_recipe("quick"))
    done = run("quicker")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: recipes/quicker.yaml is missing; there are article, best, good, quick"
    )
    assert done.stderr.count("\n") == 1
    assert done.stdout == "--no-such-recipe\n"  # DVC refuses it, instead of running the defaults
    for arguments in (("quick", "good"), ("--nam", "quick"), ("q" * 300,)):
        done = run(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "--no-such-recipe\n", 1)


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ("trian: {epochs: 3}", "trian: no such parameter; there are download, vectorize"),
        ("train: {epoch: 3}", "train.epoch: no such parameter; there are epochs"),
        ("train: {epochs: 0}", "train.epochs: got 0; takes a whole number"),
        ("train: {streams: 2}", "train.streams is now called train.microbatches; rename it"),
        ("train: 3", "params.train: got 3; takes sections of params.yaml"),
    ],
)
def test_a_recipe_with_a_mistake_is_named(tmp_path, monkeypatch, params, line):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/mine.yaml").write_text(f"about: Mine.\nparams: {{{params}}}\n", encoding="utf-8")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError) as caught:
        read_recipe("mine")
    assert str(caught.value).startswith(f"recipes/mine.yaml: {line}")


@pytest.mark.parametrize("name", ["article", "quick", "good", "best"])
def test_a_recipe_sets_all_that_the_model_learns_by(name):
    """Whatever else params.yaml has, but not what a machine or a user chooses."""
    chosen = {"seed", "init_from", "device", "use_cudnn", "cores", "workers", "worker_timeout"}
    chosen |= {"patience", "preview"}
    sections = read_recipe(name).params
    assert set(sections["model"]) == set(Model.model_fields)
    assert set(sections["train"]) == set(Train.model_fields) - chosen
