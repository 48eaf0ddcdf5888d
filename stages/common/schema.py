"""Validated YAML files: types and ranges by pydantic, mistakes reported in one line.

The line has the parameter's dotted name, what it got and what it takes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from stages.common.errors import StageError

SHOWN = 200  # characters of a wrong value that a message shows


def _number_from_yaml(value: object) -> object:
    """Read 1e-3 (no dot) as a number: YAML 1.1 takes it for text, every other reader does not."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


Number = Annotated[float, BeforeValidator(_number_from_yaml)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SHA256_TAKES = "64 hexadecimal digits in lower case"


def parameter(takes: str, **limits: Any) -> Any:
    """Declare a parameter.

    Args:
        takes: what it accepts, in words, for error messages.
        **limits: the same for pydantic's `Field`.

    Returns:
        The pydantic field.
    """
    return Field(description=takes, **limits)


class Section(BaseModel):
    """A part of a YAML file: exact types, no unknown key."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


AnySection = TypeVar("AnySection", bound=Section)


def read_yaml(path: Path, if_missing: str) -> Any:
    """Read a YAML file without constructing Python objects.

    PyYAML reads YAML 1.1, DVC reads YAML 1.2. A value that means something else to each is refused: DVC
    would record another parameter than the one that was used.

    Args:
        path: the file.
        if_missing: what the user can do if there is no such file.

    Returns:
        The tree of dicts, lists and scalars.

    Raises:
        StageError: the file is missing, not UTF-8, not YAML, or has a value with two readings.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
        if difference := _two_readings(tree, YAML(typ="safe", pure=True).load(text), ""):
            raise StageError(f"{path}: {difference}")
        return tree
    except FileNotFoundError:
        raise StageError(f"{path} is missing; {if_missing}") from None
    except UnicodeDecodeError as error:
        raise StageError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except (yaml.YAMLError, YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise StageError(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None


def _two_readings(first: Any, second: Any, name: str) -> str:
    """Describe the first value that YAML 1.1 and YAML 1.2 read differently; empty if there is none."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        pairs = [(first[key], second[key], f"{name}.{key}".lstrip(".")) for key in first]
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = [(*pair, f"{name}.{at}") for at, pair in enumerate(zip(first, second, strict=True))]
    else:
        same = first == second and isinstance(first, bool) == isinstance(second, bool)
        if same or _number_from_yaml(first) == second or first != first:  # not-a-number is unequal to itself
            return ""
        return (
            f"{name}: YAML 1.1 reads {_shown(first)}, YAML 1.2 (DVC) reads {_shown(second)}; write it "
            "without leading zeros, colons and words like yes or off, or in quotes if it is text"
        )
    return next(filter(None, (_two_readings(*pair) for pair in pairs)), "")


def read_checked(
    path: Path, section: type[AnySection], if_missing: str, renamed: Mapping[str, str] | None = None
) -> AnySection:
    """Read a YAML file and validate it.

    Args:
        path: the file.
        section: the pydantic model of the whole file.
        if_missing: what the user can do if there is no such file.
        renamed: former dotted names of parameters and their present names.

    Returns:
        The validated section.

    Raises:
        StageError: the file is missing or not YAML, or a key is unknown or missing, or a value has the
            wrong type or is out of range. The message names the first mistake and counts the others.
    """
    return checked(read_yaml(path, if_missing), path, section, renamed)


def checked(
    tree: Any, path: Path, section: type[AnySection], renamed: Mapping[str, str] | None = None
) -> AnySection:
    """Validate a tree that was read from a YAML file; arguments and errors as for `read_checked`."""
    if not isinstance(tree, dict):
        keys = ", ".join(section.model_fields)
        raise StageError(f"{path}: takes the keys {keys}; got {str(tree)[:SHOWN]!r}")
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise StageError(f"{path}: {_in_one_line(error, section, renamed or {})}") from None


def _shown(value: Any) -> str:
    """Write a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _in_one_line(error: ValidationError, section: type[Section], renamed: Mapping[str, str]) -> str:
    """Describe the first mistake, as in `train.epochs: got -3; takes a whole number ...`."""
    mistakes = error.errors()
    for mistake in mistakes:
        if now := renamed.get(".".join(map(str, mistake["loc"]))):
            return f"{'.'.join(map(str, mistake['loc']))} is now called {now}; rename it"
    first, *others = mistakes
    location = [part for part in first["loc"] if part != "[key]"]
    name = ".".join(map(str, location))
    siblings, takes = _field_at(location, section)
    if first["type"] == "extra_forbidden":
        message = f"{name}: no such parameter; there are {', '.join(siblings)}"
    elif first["type"] == "missing":
        message = f"{name}: is missing; takes {takes}"
    else:
        message = f"{name}: got {_shown(first['input'])}; takes {takes}"
    return message + (f" (and {len(others)} more mistakes)" if others else "")


def _field_at(location: list[Any], section: type[Section]) -> tuple[list[str], str]:
    """Find the sibling keys of a location, and what the innermost parameter there takes."""
    model: type[BaseModel] | None = section
    siblings: list[str] = list(section.model_fields)
    takes = "a section"
    for part in location:
        if model is not None and part in model.model_fields:
            field = model.model_fields[part]
            takes = field.description or takes
            below = _models_in(field.annotation)
            model = below[0] if below else None
        if model is not None:
            siblings = list(model.model_fields)
    return siblings, takes


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """List the pydantic models that a type annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in _models_in(a)]
