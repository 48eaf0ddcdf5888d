"""The file `data/windows.npz`: written in either layout, read back as memory-mapped indices."""

import mmap
import struct
from pathlib import Path
from typing import IO, Literal
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np

from stages.common.errors import StageError
from stages.common.paths import WINDOWS_FILE
from stages.text.windows import Windows, one_hot


def save_windows(file: IO[bytes], windows: Windows, as_one_hot: bool) -> None:
    """Write the windows as `.npz`; equal windows give equal bytes (numpy's zip members carry no time).

    Args:
        file: a binary file.
        windows: what to write.
        as_one_hot: whether to write the article's one-hot tensors, x (n, maxlen, V) and y (n, V) in bool,
            instead of indices.
    """
    arrays = {"x": windows.x, "y": windows.y}
    if len(windows.x_val):
        arrays |= {"x_val": windows.x_val, "y_val": windows.y_val}
    if len(windows.x_test):
        arrays |= {"x_test": windows.x_test, "y_test": windows.y_test}
    if as_one_hot:
        arrays = {name: one_hot(array, len(windows.vocabulary)) for name, array in arrays.items()}
    np.savez(file, vocabulary=np.array(list(windows.vocabulary), dtype="<U1"), **arrays)  # type: ignore[arg-type]


def load_windows(path: Path = WINDOWS_FILE) -> Windows:
    """Map the `.npz` of either layout into memory, as indices.

    The arrays are views of the file: the system reads a page when a window on it is used, and drops it
    when memory runs short. Only one-hot arrays are copied, as indices.

    Args:
        path: the file.

    Returns:
        The windows.

    Raises:
        StageError: the file is missing, damaged or not one that the vectorize stage wrote.
    """
    arrays, mapped = _mapped(path)
    windows = _checked(arrays, path)
    if hasattr(mapped, "madvise"):  # windows are drawn at random: reading ahead would be wasted
        mapped.madvise(mmap.MADV_RANDOM)
    return windows


def _mapped(path: Path) -> tuple[dict[str, np.ndarray], mmap.mmap]:
    """Map the arrays of an uncompressed `.npz` as read-only views of the file.

    `np.load` maps a `.npy` only. Every member's checksum is checked first, in pieces. Returns the arrays
    and the mapped file.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        with ZipFile(path) as archive, open(path, "rb") as file:
            if damaged := archive.testzip():
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
        raise StageError(f"{path} is missing; `dvc repro vectorize` creates it") from None
    except (ValueError, TypeError, EOFError, struct.error, NotImplementedError, BadZipFile) as error:
        raise StageError(f"{path} is damaged ({error}); `dvc repro vectorize` creates it again") from None
    return arrays, mapped


def _checked(arrays: dict[str, np.ndarray], path: Path) -> Windows:
    """Check that the arrays are what the vectorize stage writes."""

    def invalid(what: str) -> StageError:
        return StageError(f"{path}: {what}; `dvc repro vectorize` creates a valid file")

    if missing := {"x", "y", "vocabulary"} - arrays.keys():
        raise invalid(f"has no array {', '.join(sorted(missing))}")
    vocabulary = arrays["vocabulary"]
    if vocabulary.dtype != np.dtype("<U1") or vocabulary.ndim != 1:
        raise invalid("vocabulary is not a list of single characters")
    # by code, since numpy reads the character NUL back as an empty string
    characters = "".join(map(chr, np.ascontiguousarray(vocabulary).view("<u4")))
    for name in ("x", "x_val", "x_test"):
        if name in arrays and arrays[name].dtype == bool:
            target = "y" + name[1:]
            if arrays[name].ndim != 3 or arrays.get(target, arrays[name]).ndim != 2:
                raise invalid(f"{name} and {target} are not one-hot windows and targets")
            smallest = np.min_scalar_type(max(len(characters) - 1, 0))
            arrays[name] = _indices(arrays[name], smallest)
            arrays[target] = _indices(arrays[target], smallest)
    x, y = arrays["x"], arrays["y"]
    if x.ndim != 2 or len(x) == 0 or x.shape[1] == 0:
        raise invalid(f"x has shape {x.shape}, not (windows, maxlen)")
    parts = [("x", x, y)]
    for split in ("val", "test"):
        parts.append((f"x_{split}", arrays.get(f"x_{split}", x[:0]), arrays.get(f"y_{split}", y[:0])))
    for part, rows, targets in parts:
        if rows.dtype.kind != "u" or targets.dtype.kind != "u":
            raise invalid(f"{part} and its targets have types {rows.dtype} and {targets.dtype}")
        if targets.shape != (len(rows),) or rows.shape[1:] != x.shape[1:]:
            raise invalid(f"{part} and its targets have shapes {rows.shape} and {targets.shape}")
        if len(rows) and max(rows.max(), targets.max()) >= len(characters):
            raise invalid(f"{part} has an index outside the vocabulary of {len(characters)}")
    (x_val, y_val), (x_test, y_test) = (each[1:] for each in parts[1:])
    return Windows(x, y, x_val, y_val, x_test, y_test, characters)


def _indices(hot: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Turn one-hot rows back into indices, in pieces: one arg max would take eight bytes for each."""
    out = np.empty(hot.shape[:-1], dtype)
    for start in range(0, len(hot), 4096):
        out[start : start + 4096] = hot[start : start + 4096].argmax(axis=-1)
    return out
