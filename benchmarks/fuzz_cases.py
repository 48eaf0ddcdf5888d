"""Random parameter files and texts, each made from a seed and its number alone."""

import gzip
import math
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import numpy as np
import yaml
from pydantic.fields import FieldInfo

from stages.common.params import Params
from tests.support import changed_params, make_text

KINDS = ("parameters", "texts")
SMALL = {
    "download__corpus": "corpora/book.txt",
    "download__offline_corpus": None,
    "vectorize__maxlen": 8,
    "model__units": 4,
    "train__epochs": 1,
    "train__batch_size": 64,
    "train__preview": 5,
    "sample__length": 12,
    "sample__temperatures": [0.0, 1.0],
    "train__microbatches": 2,
}
# largest value that a case runs with, so that it takes about a second; beyond the limits nothing is run
CAPS = {
    "maxlen": 30,
    "layers": 3,
    "units": 16,
    "embedding": 16,
    "epochs": 2,
    "steps_per_epoch": 20,
    "microbatches": 4,
    "workers": 1,
    "preview": 30,
    "length": 30,
}
PROMPTS = [None, "ba", "BA di\nko", "€", "\0", "ba" * 40, "\u2028", " "]
VALID: dict[str, list[Any]] = {
    "corpus": [
        "corpora/book.txt",
        "corpora/book.txt",
        "./corpora//book.txt",
        "corpora/missing.txt",
        "corpora/missing.yaml",
    ],
    "offline_corpus": [None, "corpora/missing.yaml"],
    "init_from": ["initial/random", "./initial/random", "initial/missing.keras"],
    "encoding": ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-7", "ascii", "gb18030", "idna"],
    "sha256": [None, "0" * 64],
    "temperatures": [[0.0], [1], [100.0, 1e-3], [5e-324, 0.0, 0.3], [1e-30, 1e-38]],
    "prompt": PROMPTS,
}
OUTSIDE: dict[str, list[Any]] = {
    "corpus": [
        "",
        7,
        None,
        ["corpora/book.txt"],
        "book.txt",
        "corpora",
        "metrics",
        "corpora/../book.txt",
        "corpora/\0",
    ],
    "offline_corpus": ["bible", "", 7, "corpora/x.yaml\n", "x.yaml", "/corpora/x.yaml"],
    "init_from": ["", 7, None, "initial", "models/model.keras"],
    "encoding": ["no-such", "rot13", "", "hex", "utf\0", 8, None],
    "sha256": ["12ab", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n", 0],
    "temperatures": [[], [-0.1], [100.1], [0.5, 0.5], [1, 1.0], 0.5, None, [None], ["x"], [math.nan], [True]],
    "prompt": ["", 7, ["a"], False],
}
FIELDS = [
    (section, name, field)
    for section, about in Params.model_fields.items()
    for name, field in about.annotation.model_fields.items()  # type: ignore[union-attr]
]
ENDS = [
    "\n",
    "\r",
    "\r\n",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\u2028",
    "\u2029",
    "\0",
    "\ufeff",
    "\t",
    "</script>",
]


@dataclass(frozen=True)
class Case:
    """The input of one run of the pipeline.

    Attributes:
        name: its kind and number.
        params: the bytes of `params.yaml`.
        text: the bytes of `corpora/book.txt`.
        wrong: the parameter that has to be refused; empty if none has to be.
    """

    name: str
    params: bytes
    text: bytes
    wrong: str = ""


def make_case(seed: int, kind: str, number: int) -> Case:
    """Make a case; every second one of the parameters has a wrong value, each parameter in turn."""
    rng = np.random.default_rng([seed, KINDS.index(kind), number])
    settings: dict[str, Any] = dict(SMALL)
    if kind == "parameters":  # train.keep and train.patience need one
        settings["vectorize__validation"] = 0.3
    wrong, text = "", make_text(int(rng.integers(100, 600)), number).encode()
    changed = list(FIELDS) if kind == "parameters" else [f for f in FIELDS if f[0] == "vectorize"]
    for index in rng.permutation(len(changed))[: rng.integers(1, 8)]:
        section, name, field = changed[index]
        settings[f"{section}__{name}"] = pick(rng, valid_values(rng, name, field))
    if settings.get("vectorize__validation", 0) + settings.get("vectorize__test", 0) > 0.5:
        settings["vectorize__test"] = 0.0
    if kind == "texts":
        text = random_text(rng, settings["vectorize__maxlen"], settings["train__batch_size"])
    elif number % 2:
        section, name, field = FIELDS[number // 2 % len(FIELDS)]
        settings[f"{section}__{name}"] = pick(rng, outside_values(name, field))
        wrong = f"{section}.{name}"
    tree = changed_params(**settings)
    return Case(f"{kind}:{number}", yaml.safe_dump(tree, allow_unicode=True).encode(), text, wrong)


def pick(rng: np.random.Generator, values: list[Any]) -> Any:
    """One of the values; numpy's `choice` would change their types."""
    return values[rng.integers(len(values))]


def types_of(field: FieldInfo) -> set[type]:
    """The types that a field takes, without limits."""
    if get_origin(field.annotation) is Literal:
        return {str}
    return {get_args(a)[0] if hasattr(a, "__metadata__") else a for a in get_args(field.annotation)} or {
        field.annotation  # type: ignore[arg-type]
    }


def limits_of(field: FieldInfo) -> tuple[Any, Any]:
    """The smallest and the largest number that a field takes."""
    step = 1 if int in types_of(field) else 0
    given = {
        name: getattr(m, name)
        for m in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(m, name)
    }
    low = given["ge"] if "ge" in given else given["gt"] + step or math.nextafter(given["gt"], math.inf)
    return low, given["le"] if "le" in given else given["lt"] - step


def valid_values(rng: np.random.Generator, name: str, field: FieldInfo) -> list[Any]:
    """Values that a field takes, its limits among them."""
    types = types_of(field)
    if name in VALID:
        return VALID[name]
    if bool in types:
        return [True, False]
    if str in types:
        return list(get_args(field.annotation))
    low, high = limits_of(field)
    high = min(high, CAPS.get(name, high))
    inner = int(rng.integers(low, high + 1)) if int in types else float(rng.uniform(low, high))
    return [low, high, inner, inner] + [None] * (NoneType in types)


def outside_values(name: str, field: FieldInfo) -> list[Any]:
    """Values that a field refuses: just beyond its limits, and of other types."""
    types = types_of(field)
    others: list[Any] = [[], {}, "many", "1", math.nan, math.inf] + [None] * (NoneType not in types)
    if name in OUTSIDE:
        return OUTSIDE[name]
    if bool in types:
        return [*others, "yes", 1, 0]
    if str in types:
        return [*others, 1, True, f" {get_args(field.annotation)[0]}"]
    low, high = limits_of(field)
    if int in types:
        return [*others, True, low - 1, high + 1, high + 1, -(10**30), 10**30, low + 0.5]
    return [*others, True, math.nextafter(low, -math.inf), math.nextafter(high, math.inf), 10**400, -1e308]


def random_text(rng: np.random.Generator, maxlen: int, batch: int) -> bytes:
    """A text of all of Unicode, with every line end, of a size near a limit, packed or damaged at times."""
    size = pick(rng, [0, 1, maxlen, maxlen + 1, maxlen + 2, 3 * batch + maxlen, *rng.integers(20, 500, 6)])
    top = pick(rng, [0x80, 0x100, 0x3000, 0x110000])
    alphabet = [
        c for c in map(chr, rng.integers(0, top, rng.integers(1, 80))) if not "\ud800" <= c <= "\udfff"
    ]
    alphabet += [pick(rng, ENDS) for _ in range(rng.integers(0, 6))] or ["a"]
    text = pick(rng, ["", "", "\ufeff"]) + "".join(pick(rng, alphabet) for _ in range(size))
    content = bytearray(text.encode())
    if rng.random() < 0.15 and content:
        content[rng.integers(len(content))] = pick(rng, [0xFF, 0xC0, 0xED, 0x80, 0xF5])
    return gzip.compress(bytes(content))[: pick(rng, [None, -5])] if rng.random() < 0.1 else bytes(content)
