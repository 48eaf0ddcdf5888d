"""Recipes: files in `recipes/` that change some parameters of `params.yaml`, with a sentence each."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from stages.common.errors import StageError
from stages.common.params import PARAMS_FILE, RENAMED, Params
from stages.common.schema import Section, checked, parameter, read_checked, read_yaml

FOLDER = Path("recipes")
PLAIN = re.compile(r"[A-Za-z0-9._/+-]+|\[[0-9.,e+-]*\]")  # a shell, hydra and YAML leave it as it is


class Recipe(Section):
    """A set of parameters."""

    about: str = parameter("a sentence", min_length=1)
    params: dict[str, dict[str, Any]] = parameter("sections of params.yaml with the parameters to change")


def names() -> list[str]:
    """List the recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> Recipe:
    """Read a recipe, and validate the parameters that it gives.

    Args:
        name: of the file, without its suffix.

    Returns:
        The recipe.

    Raises:
        StageError: there is no such recipe, or it has a mistake; the message names the first one.
    """
    path = FOLDER / f"{name}.yaml"
    recipe = read_checked(path, Recipe, f"there are {', '.join(names()) or 'none'}")
    apply_recipe(recipe, path)
    return recipe


def apply_recipe(recipe: Recipe, path: Path) -> Params:
    """Apply a recipe to `params.yaml`.

    Args:
        recipe: the recipe.
        path: its file, for error messages.

    Returns:
        All parameters.

    Raises:
        StageError: an unknown section or parameter, a wrong type or a value out of range.
    """
    tree: dict[str, Any] = read_yaml(PARAMS_FILE, "run from the project's root")
    for section, values in recipe.params.items():
        tree[section] = tree.get(section, {}) | values
    return checked(tree, path, Params, RENAMED)


def options_of(recipe: Recipe) -> list[str]:
    """Write a recipe as options of `dvc exp run`: -S section.parameter=value for each parameter.

    Args:
        recipe: the recipe.

    Returns:
        The options.

    Raises:
        StageError: a shell would split a value, or YAML would read it as another type.
    """
    options = []
    for section, values in recipe.params.items():
        for name, value in values.items():
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            if not PLAIN.fullmatch(text) or not isinstance(yaml.safe_load(text), type(value)):
                raise StageError(
                    f"{section}.{name}: got {value!r}; a recipe takes numbers, true, false, null, lists "
                    "of these, and text of letters, digits and . _ / + - that is none of these"
                )
            options += ["-S", f"{section}.{name}={text}"]
    return options
