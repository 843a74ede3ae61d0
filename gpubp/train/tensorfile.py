"""Files of arrays and JSON: the safetensors format, sealed with a digest.

Comes in: arrays by name, and a record of JSON values. Goes out: the same, or a `CheckpointError`
that names the file and what is wrong. Nothing in a file is ever executed.

Holds in between: a file that was written here carries the SHA-256 of all its bytes (its own 64
digits counted as zeros), so that no changed bit goes unnoticed, and the same content is the same
bytes. Files that other programs wrote in this format (PyTorch's weights, say) have no digest and
are read where the caller allows it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.atomic import replacing
from gpubp.errors import CheckpointError, MissingExtraError

Tensors = dict[str, NDArray[Any]]
Path_ = str | os.PathLike[str]

# What NumPy has of the format's dtypes, by the format's names.
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool", "C64": "complex64",
}  # fmt: skip
_UNSEALED = b"0" * 64
_RECORD, _DIGEST = "gpubp", "sha256"


def write(path: Path_, tensors: Mapping[str, NDArray[Any]], record: Mapping[str, Any]) -> None:
    """Write a sealed file; it takes the place of `path` at once and as a whole.

    Args:
        path: the file.
        tensors: arrays of numbers or booleans.
        record: JSON values; NaN and infinity are kept.

    Raises:
        CheckpointError: the folder does not exist or cannot be written, or an array of a dtype that
            the format does not have.
    """
    for name, array in tensors.items():
        check_dtype(name, np.asarray(array))
    metadata = {
        "format": "pt",
        _RECORD: json.dumps(record, sort_keys=True),
        _DIGEST: _UNSEALED.decode(),
    }
    arrays = {name: np.ascontiguousarray(a).reshape(np.shape(a)) for name, a in tensors.items()}
    raw = _in_order(_package().save(arrays, metadata=metadata))
    mark = _seal_of(_UNSEALED)
    raw = raw.replace(mark, _seal_of(hashlib.sha256(raw).hexdigest().encode()), 1)
    try:
        with replacing(path) as file:
            file.write(raw)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror}.") from error


def check_dtype(name: str, array: NDArray[Any]) -> None:
    """Raise CheckpointError unless files can hold arrays of this dtype."""
    if array.dtype.name not in _DTYPES.values():
        raise CheckpointError(
            f"{name} has dtype {array.dtype}, which files cannot hold; supported are "
            f"{', '.join(_DTYPES.values())}. Convert it first."
        )


def _in_order(raw: bytes) -> bytes:
    """The same file with its metadata by name: the package writes them in any order."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]


def read(path: Path_, sealed: bool = True) -> tuple[Tensors, dict[str, Any]]:
    """Read a file and verify it.

    Args:
        path: the file.
        sealed: refuse files that were not written by `write`.

    Returns:
        The arrays, and the record ({} in a file of another program).

    Raises:
        CheckpointError: the file is missing, unreadable, truncated, changed or of another kind, or
            holds an array of a dtype that NumPy does not have.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    package = _package()
    try:
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        foreign = {n: e["dtype"] for n, e in header.items() if e["dtype"] not in _DTYPES}
        tensors: Tensors = {} if foreign else package.load(raw)
    except Exception as error:
        raise CheckpointError(
            f"{path} is no safetensors file, or it is truncated or damaged ({error})."
            f"{_meant(path, raw)}"
        ) from error
    for name, dtype in foreign.items():
        raise CheckpointError(
            f"{path}: {name} has dtype {dtype}, which NumPy does not have; supported are "
            f"{', '.join(_DTYPES)}. Convert it in the program that wrote it (tensor.float() in "
            "PyTorch)."
        )
    ours = _RECORD in metadata or _DIGEST in metadata
    if not ours and sealed:
        raise CheckpointError(f"{path} was not written by gpubp: it holds weights alone.")
    if ours:
        return tensors, _verified(path, raw, metadata)
    # safetensors.torch.save_model leaves out names of shared tensors, and notes the names it kept.
    shared = {n: tensors[k] for n, k in metadata.items() if n not in tensors and k in tensors}
    return {**tensors, **shared}, {}


def _meant(path: Path_, raw: bytes) -> str:
    """What to do with a file of another kind, if it looks like one."""
    if raw[:2] in (b"PK", b"\x80\x02"):  # zip, and pickles of old
        return (
            f" If PyTorch wrote it: model.load_state_dict(torch.load({str(path)!r})), which keeps "
            "torch's names."
        )
    if Path(path).suffix.lower() in (".csv", ".tsv", ".npz"):
        return " It holds data: a model file comes from `gpubp train --save`."
    return ""


def _verified(path: Path_, raw: bytes, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The record, if the digest is that of the bytes."""
    digest = metadata.get(_DIGEST, "").encode(errors="replace")
    unsealed = raw.replace(_seal_of(digest), _seal_of(_UNSEALED), 1)
    if hashlib.sha256(unsealed).hexdigest().encode() != digest:
        raise CheckpointError(
            f"{path} is damaged: its contents do not match the digest stored with them."
        )
    record = json.loads(metadata[_RECORD])
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} is damaged: its record is no table.")
    return record


def _seal_of(digest: bytes) -> bytes:
    return b'"%s":"%s"' % (_DIGEST.encode(), digest)


def _package() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError(
            "model files need safetensors, which is not installed. Run: pip install safetensors"
        ) from error
    return safetensors.numpy


def pack(value: Any, tensors: Tensors, name: str) -> Any:
    """Nested Python values as JSON values; arrays go to `tensors`, named by their places.

    Args:
        value: numbers, strings, None, arrays, and lists, tuples and dicts of them.
        tensors: gets the arrays; one that is there already, bit for bit, is not added again.
        name: of the value; those of the arrays start with it.

    Raises:
        CheckpointError: a value of another type.
    """
    if isinstance(value, np.ndarray):
        check_dtype(name, value)
        return {"$tensor": _put(value, tensors, name)}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        items = [[k, pack(v, tensors, f"{name}.{k}")] for k, v in value.items()]
        plain = all(isinstance(k, str) and not k.startswith("$") for k in value)
        return dict(items) if plain else {"$items": items}
    if isinstance(value, (list, tuple)):
        packed = [pack(v, tensors, f"{name}.{i}") for i, v in enumerate(value)]
        return {"$tuple": packed} if isinstance(value, tuple) else packed
    raise CheckpointError(
        f"{name} holds a {type(value).__name__}, which cannot be saved; expected numbers, strings, "
        "arrays, and lists and dicts of them."
    )


def _put(array: NDArray[Any], tensors: Tensors, name: str) -> str:
    for known, other in tensors.items():
        same = other.shape == array.shape and other.dtype == array.dtype
        if same and other.tobytes() == array.tobytes():
            return known
    tensors[name] = array
    return name


def unpack(value: Any, tensors: Mapping[str, NDArray[Any]]) -> Any:
    """The value that `pack` was given; its arrays are those of `tensors`."""
    if isinstance(value, list):
        return [unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$items" in value:
        return {k: unpack(v, tensors) for k, v in value["$items"]}
    if "$tuple" in value:
        return tuple(unpack(v, tensors) for v in value["$tuple"])
    return {k: unpack(v, tensors) for k, v in value.items()}
