"""Recipes: files in `recipes/` that change some parameters of `params.yaml`, with a sentence each."""

import json
from pathlib import Path
from typing import Any

import yaml

from stages.common.errors import StageError
from stages.common.params import PARAMS_FILE, Params
from stages.common.schema import Section, parameter, read_checked, read_yaml

FOLDER = Path("recipes")


class Recipe(Section):
    """A set of parameters."""

    about: str = parameter("a sentence", min_length=1)
    params: dict[str, dict[str, Any]] = parameter("sections of params.yaml with the parameters to change")


def names() -> list[str]:
    """List the recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> Recipe:
    """Read and validate a recipe.

    Args:
        name: of the file, without its suffix.

    Returns:
        The recipe.

    Raises:
        StageError: there is no such recipe, or it has a mistake.
    """
    hint = f"there are {', '.join(names()) or 'none'}"
    return read_checked(FOLDER / f"{name}.yaml", Recipe, hint)


def apply_recipe(recipe: Recipe, params_file: Path = PARAMS_FILE) -> dict[str, Any]:
    """Apply a recipe to `params.yaml`.

    Args:
        recipe: the recipe.
        params_file: the file to start from.

    Returns:
        The tree of all parameters.

    Raises:
        StageError: the recipe has an unknown section.
    """
    tree: dict[str, Any] = read_yaml(params_file, "run from the project's root")
    for section, values in recipe.params.items():
        if section not in Params.model_fields:
            raise StageError(f"no section {section!r}; there are {', '.join(Params.model_fields)}")
        tree[section] |= values
    return tree


def options_of(recipe: Recipe) -> list[str]:
    """Write a recipe as options of `dvc exp run`: -S section.parameter=value for each parameter.

    Args:
        recipe: the recipe.

    Returns:
        The options.

    Raises:
        StageError: a value has a space, so that a shell would take it apart.
    """
    options = []
    for section, values in recipe.params.items():
        for name, value in values.items():
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            if not isinstance(yaml.safe_load(text), type(value)) or len(text.split()) != 1:
                raise StageError(f"{section}.{name}: got {value!r}; a recipe takes values without spaces")
            options += ["-S", f"{section}.{name}={text}"]
    return options
