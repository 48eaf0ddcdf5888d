"""The windows: how text becomes the tensors of `data/windows.npz`, and how they are read back.

A window is `maxlen` consecutive characters, its target the character after it, both as indices into
the charset, the sorted list of distinct characters.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np

from stages.errors import StageError
from stages.layout import WINDOWS_FILE


@dataclass(frozen=True)
class Windows:
    """What `data/windows.npz` holds, always as indices.

    x: (n, maxlen) and y: (n,), indices into `charset` in an unsigned type; x_val, y_val likewise,
    with n = 0 where nothing is held out; charset: the V distinct characters, sorted.
    """

    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    charset: str

    @property
    def maxlen(self) -> int:
        """Characters in a window."""
        return int(self.x.shape[1])


def encode(text: str) -> tuple[np.ndarray, str]:
    """Text as indices into its own charset.

    Returns (len(text),) indices in the smallest unsigned type that fits V characters, and the
    charset: the article's `sorted(list(set(text)))` and `char_indices`.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    index_of = np.zeros(0x110000, dtype=bool)
    index_of[codes] = True
    charset = np.flatnonzero(index_of)
    smallest = np.min_scalar_type(max(len(charset) - 1, 0))
    table = np.zeros(0x110000, dtype=smallest)
    table[charset] = np.arange(len(charset), dtype=smallest)
    return table[codes], "".join(map(chr, charset))


def cut(indices: np.ndarray, maxlen: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of `maxlen` every `step` characters, each with the character that follows.

    Returns x (n, maxlen) and y (n,), views of `indices`, n = ceil((len - maxlen) / step) or 0: the
    article's `for i in range(0, len(text) - maxlen, step)`.
    """
    if len(indices) <= maxlen:
        return np.empty((0, maxlen), indices.dtype), np.empty(0, indices.dtype)
    x = np.lib.stride_tricks.sliding_window_view(indices[:-1], maxlen)[::step]
    return x, indices[maxlen::step]


def one_hot(indices: np.ndarray, size: int) -> np.ndarray:
    """(...) indices as (..., size) bool, one true in each row: the article's `x` and `y`."""
    hot = np.zeros((*indices.shape, size), dtype=bool)
    np.put_along_axis(hot, indices[..., None].astype(np.intp), True, axis=-1)
    return hot


def save_windows(file: IO[bytes], windows: Windows, as_one_hot: bool) -> None:
    """Write the `.npz`; equal windows give equal bytes (numpy's zip members carry no time)."""
    arrays = {"x": windows.x, "y": windows.y}
    if len(windows.x_val):
        arrays |= {"x_val": windows.x_val, "y_val": windows.y_val}
    if as_one_hot:
        arrays = {name: one_hot(array, len(windows.charset)) for name, array in arrays.items()}
    np.savez(file, charset=np.array(list(windows.charset), dtype="<U1"), **arrays)  # type: ignore[arg-type]


def load_windows(path: Path = WINDOWS_FILE) -> Windows:
    """Map the `.npz` of either layout into memory, as indices.

    The arrays are views of the file: the system reads their pages when a window is asked for, keeps them
    while there is memory to spare, and drops them when there is not. Only one-hot arrays are copied, as
    indices. Raises StageError for a file that is missing, damaged or not made by the vectorize stage.
    """
    arrays, mapped = _mapped(path, whole=True)
    windows = _checked(arrays, path)
    if hasattr(mapped, "madvise"):  # from here on drawn at random: what lies beside a window is not next
        mapped.madvise(mmap.MADV_RANDOM)
    return windows


def _mapped(path: Path, whole: bool) -> tuple[dict[str, np.ndarray], mmap.mmap]:
    """The arrays of an uncompressed `.npz` as read-only views of the file, and the mapped file.

    np.load maps a `.npy` only. whole: compare every member with its checksum first, in pieces.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with ZipFile(path) as archive, open(path, "rb") as file:
            if whole and (damaged := archive.testzip()):
                raise ValueError(f"checksum of {damaged}")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            for member in archive.infolist():
                if member.compress_type != ZIP_STORED:
                    raise ValueError(f"{member.filename} is compressed")
                with archive.open(member) as content:
                    np.lib.format.read_magic(content)
                    shape, columns_first, dtype = np.lib.format.read_array_header_1_0(content)
                    header = content.tell()
                if dtype.hasobject:
                    raise ValueError(f"{member.filename} holds Python objects")
                # a local header is 30 bytes, two lengths at its end, then what has these lengths
                lengths = struct.unpack_from("<HH", mapped, member.header_offset + 26)
                start = member.header_offset + 30 + sum(lengths) + header
                order: Literal["F", "C"] = "F" if columns_first else "C"
                name = member.filename.removesuffix(".npy")
                arrays[name] = np.ndarray(shape, dtype, mapped, start, order=order)
    except FileNotFoundError:
        raise StageError(f"{path} is missing; `dvc repro vectorize` makes it") from None
    except (ValueError, TypeError, EOFError, struct.error, NotImplementedError, BadZipFile) as error:
        raise StageError(f"{path} is damaged ({error}); `dvc repro vectorize` makes it anew") from None
    return arrays, mapped


def _checked(arrays: dict[str, np.ndarray], path: Path) -> Windows:
    """The arrays as Windows, if they are what the vectorize stage writes."""

    def foreign(what: str) -> StageError:
        return StageError(f"{path}: {what}; `dvc repro vectorize` makes a file that fits")

    if missing := {"x", "y", "charset"} - arrays.keys():
        raise foreign(f"has no array {', '.join(sorted(missing))}")
    charset = arrays["charset"]
    if charset.dtype != np.dtype("<U1") or charset.ndim != 1:
        raise foreign("charset is not a list of single characters")
    # by code, since numpy reads the character NUL back as an empty string
    characters = "".join(map(chr, np.ascontiguousarray(charset).view("<u4")))
    for name in ("x", "x_val"):
        if name in arrays and arrays[name].dtype == bool:
            target = "y" + name[1:]
            if arrays[name].ndim != 3 or arrays.get(target, arrays[name]).ndim != 2:
                raise foreign(f"{name} and {target} are not one-hot windows and targets")
            smallest = np.min_scalar_type(max(len(characters) - 1, 0))
            arrays[name] = _indices(arrays[name], smallest)
            arrays[target] = _indices(arrays[target], smallest)
    x, y = arrays["x"], arrays["y"]
    if x.ndim != 2 or len(x) == 0 or x.shape[1] == 0:
        raise foreign(f"x has shape {x.shape}, not (windows, maxlen)")
    x_val = arrays.get("x_val", x[:0])
    y_val = arrays.get("y_val", y[:0])
    for part, rows, targets in (("x", x, y), ("x_val", x_val, y_val)):
        if rows.dtype.kind != "u" or targets.dtype.kind != "u":
            raise foreign(f"{part} and its targets have types {rows.dtype} and {targets.dtype}")
        if targets.shape != (len(rows),) or rows.shape[1:] != x.shape[1:]:
            raise foreign(f"{part} and its targets have shapes {rows.shape} and {targets.shape}")
        if len(rows) and max(rows.max(), targets.max()) >= len(characters):
            raise foreign(f"{part} has an index outside the charset of {len(characters)}")
    return Windows(x, y, x_val, y_val, characters)


def _indices(hot: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """One-hot rows back as indices, in pieces: arg max alone would take eight bytes for each."""
    out = np.empty(hot.shape[:-1], dtype)
    for start in range(0, len(hot), 4096):
        out[start : start + 4096] = hot[start : start + 4096].argmax(axis=-1)
    return out


def first_window(path: Path = WINDOWS_FILE) -> tuple[str, str]:
    """The text's first `maxlen` characters and the charset, without reading the rest."""
    arrays, _ = _mapped(path, whole=False)
    first = {name: array if name == "charset" else array[:1] for name, array in arrays.items()}
    windows = _checked(first, path)
    return "".join(windows.charset[index] for index in windows.x[0]), windows.charset
