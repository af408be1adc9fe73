"""What ``torch.save`` writes, opened as data: the zip format and the older stream of pickles.

Layout of the zip: ``<root>/data.pkl`` (one pickle), ``<root>/data/<key>`` (one storage each),
``<root>/byteorder``. Layout of the stream: five pickles (a magic number, a protocol number, facts
about the machine, the object, the storages' keys), then each storage as a count and its numbers.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from typing import Any

import numpy.typing as npt

from paramrob.errors import ModelError
from paramrob.models.torch_known import QUALIFIED
from paramrob.models.torch_tensor import DTYPES, StoredTensor, decode
from paramrob.models.unpickle import HOW_TO_SAVE, Call, Global, Persistent, read_pickle

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of the magic number
MAX_ENTRIES = 100_000
MAX_PICKLE = 32 * 2**20


_STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128",
}
# Dtypes that only an error message names; a stream of storages must still be walked.
_OTHER_SIZES = {"bool": 1, "complex64": 8, "complex128": 16}
_PARAMETER = "torch._utils._rebuild_parameter"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_ALLOWED = {
    *QUALIFIED,
    *_STORAGES,
    _PARAMETER,
    _TENSOR,
    "collections.OrderedDict",
    "__builtin__.set",
    "builtins.set",
}
_LAYERS_READ = "paramrob reads " + ", ".join(QUALIFIED.values())
_PLAIN = "store plain dense tensors of float64, float32, float16 or bfloat16 instead"
_EXPLAINED = {
    "torch.nn.modules.": f"a layer without support; {_LAYERS_READ}",
    "torch.ao.": f"a quantized or otherwise rewritten module; {_LAYERS_READ}",
    "torch._utils._rebuild_qtensor": f"a quantized tensor; {_PLAIN}",
    "torch._utils._rebuild_sparse": f"a sparse tensor; {_PLAIN}",
    "torch._utils._rebuild_meta": f"a tensor without numbers (device meta); {_PLAIN}",
    "torch._utils._rebuild_tensor_v3": f"a tensor of an unusual dtype (float8, unsigned); {_PLAIN}",
    "torch._utils._rebuild_parameter_with_state": f"a parameter with attributes; {_PLAIN}",
}
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    ValueError,
    OverflowError,
    RuntimeError,
    NotImplementedError,
    OSError,
)


class Archive:
    """The entries of a zip file that lies in memory; only uncompressed ones can be read.

    torch stores without compression, so no entry can be larger than the file.

    Raises:
        ModelError: the file is truncated, damaged or declares more than it holds.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except _ZIP_ERRORS as error:
            raise ModelError(
                "the file is truncated or damaged (its zip directory cannot be read); copy or "
                "save the model again"
            ) from error
        entries = self._zip.infolist()
        self._entries = {entry.filename: entry for entry in entries}
        stored = [e for e in entries if e.compress_type == zipfile.ZIP_STORED]
        declared = sum(max(e.file_size, e.compress_size) for e in stored)
        if len(self._entries) != len(entries) or len(entries) > MAX_ENTRIES or declared > len(data):
            raise ModelError(
                "the zip file declares an entry twice, or more than it holds; no tool of torch "
                "writes such a file: save the model again"
            )

    @property
    def names(self) -> list[str]:
        """The entries' names."""
        return list(self._entries)

    def find(self, ending: str) -> list[str]:
        """Return the names of the form ``<root>/<ending>``."""
        return [n for n in self._entries if n.partition("/")[2] == ending]

    def read(self, name: str) -> bytes:
        """Return one entry.

        Raises:
            ModelError: it is missing, compressed or damaged.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise ModelError(f"the file lacks its part {name!r}; copy or save the model again")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ModelError(
                f"part {name!r} of the file is compressed, which torch.save does not do; save the "
                "model again"
            )
        try:
            return self._zip.read(entry)
        except _ZIP_ERRORS as error:
            raise ModelError(
                f"part {name!r} of the file is damaged ({error}); copy or save the model again"
            ) from error


class TorchFile:
    """The object that ``torch.save`` was given, as data: ``content`` describes it.

    Args:
        data: the whole file, of either format.

    Raises:
        UnsafeModelError: its pickle mentions a name outside the allow-list.
        ModelError: it is damaged, or not what ``torch.save`` writes.
    """

    def __init__(self, data: bytes) -> None:
        self._archive: Archive | None = None
        self._big_endian = False
        self._storages: dict[str, bytes] = {}
        self._decoded: dict[tuple[str, str], npt.NDArray[Any]] = {}
        self.content = self._open_zip(data) if data[:4] == ZIP_MAGIC else self._open_legacy(data)

    def tensor(self, value: object, name: str) -> StoredTensor:
        """Return the tensor or parameter that ``value`` describes.

        Raises:
            ModelError: it describes none, or one that paramrob does not read.
        """
        if isinstance(value, Call) and value.function.qualified == _PARAMETER:
            if len(value.arguments) != 3 or value.arguments[2]:
                raise ModelError(f"parameter {name!r} carries hooks; save it without them")
            value = value.arguments[0]
        if not isinstance(value, Call) or value.function.qualified != _TENSOR:
            raise ModelError(f"{name!r} in the file is no tensor; {HOW_TO_SAVE}")
        if len(value.arguments) not in (6, 7) or value.arguments[5]:
            raise ModelError(f"tensor {name!r} carries hooks; save it without them")
        if len(value.arguments) == 7 and value.arguments[6]:
            raise ModelError(
                f"tensor {name!r} is a lazily negated or conjugated view; save "
                "tensor.resolve_neg().resolve_conj() instead"
            )
        storage, offset, sizes, strides = value.arguments[:4]
        if not isinstance(sizes, tuple) or not isinstance(strides, tuple):
            raise ModelError(f"tensor {name!r} has an impossible shape; save the model again")
        dtype, key, count = self._storage(storage, name)
        return StoredTensor(
            key, lambda: self._flat(key, dtype, count), dtype, offset, sizes, strides
        )

    def is_tensor(self, value: object) -> bool:
        """Whether ``value`` describes a tensor or a parameter."""
        return isinstance(value, Call) and value.function.qualified in (_PARAMETER, _TENSOR)

    def _storage(self, storage: object, name: str) -> tuple[str, str, int]:
        match storage:
            case Persistent(identifier=("storage", Global() as kind, str() as key, str(), count)):
                pass
            case Persistent(
                identifier=("storage", Global() as kind, str() as key, str(), count, None)
            ):
                pass
            case _:
                raise ModelError(f"tensor {name!r} has no storage in the file; save it again")
        dtype = _STORAGES.get(kind.qualified)
        if dtype is None or type(count) is not int:
            raise ModelError(f"tensor {name!r} has a strange storage; save the model again")
        return dtype, key, count

    def _flat(self, key: str, dtype: str, count: int) -> npt.NDArray[Any]:
        if (key, dtype) not in self._decoded:
            data = self._storages.get(key)
            if data is None:
                data = self._read_storage(key)
            self._decoded[key, dtype] = decode(data, dtype, self._big_endian)
        flat = self._decoded[key, dtype]
        if flat.size != count:
            raise ModelError(
                f"storage {key!r} holds {flat.size} numbers instead of {count}; the file is "
                "damaged: copy or save the model again"
            )
        return flat

    def _read_storage(self, key: str) -> bytes:
        if self._archive is None:
            raise ModelError(f"the file lacks storage {key!r}; copy or save the model again")
        return self._archive.read(f"{self._root}data/{key}")

    def _open_zip(self, data: bytes) -> object:
        archive = self._archive = Archive(data)
        pickles = archive.find("data.pkl")
        if len(pickles) != 1:
            raise ModelError("the zip file holds no model that torch.save wrote; " + HOW_TO_SAVE)
        self._root = pickles[0].removesuffix("data.pkl")
        if f"{self._root}byteorder" in archive.names:
            self._big_endian = archive.read(f"{self._root}byteorder") == b"big"
        content = archive.read(pickles[0])
        if len(content) > MAX_PICKLE:
            raise ModelError("the pickle in the file is absurdly long; " + HOW_TO_SAVE)
        stream = io.BytesIO(content)
        return read_pickle(stream, _ALLOWED, _EXPLAINED)

    def _open_legacy(self, data: bytes) -> object:
        stream = io.BytesIO(data)
        if not data.startswith(LEGACY_MAGIC):
            # Some other pickle: reading it names what it wants to call.
            read_pickle(stream, _ALLOWED, _EXPLAINED)
            raise ModelError("the file is a pickle, but no model; " + HOW_TO_SAVE)
        for _ in range(3):
            read_pickle(stream, ())
        content = read_pickle(stream, _ALLOWED, _EXPLAINED, _legacy_reference)
        keys = read_pickle(stream, ())
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ModelError("the file is damaged; copy or save the model again")
        # The counts are of elements whose size the pickle alone knows.
        sizes = dict(_legacy_storages(content))
        for key in keys:
            header = stream.read(8)
            if len(header) != 8 or key not in sizes:
                raise ModelError("the file is truncated; copy or save the model again")
            (count,) = struct.unpack("<q", header)
            length = max(count, 0) * sizes[key]
            if count < 0 or length > len(data):
                raise ModelError("the file is damaged; copy or save the model again")
            self._storages[key] = stream.read(length)
        return content


def _legacy_reference(identifier: object) -> object:
    """Return a class for ``('module', class, file, source)``; the source text is not looked at."""
    match identifier:
        case ("module", Global() as kind, *_):
            return kind
    return Persistent(identifier)


def _legacy_storages(content: object) -> list[tuple[str, int]]:
    """Return key and element size of each storage that ``content`` mentions."""
    found: list[tuple[str, int]] = []
    seen: set[int] = set()
    waiting: list[Any] = [content]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Persistent):
            match value.identifier:
                case ("storage", Global() as kind, str() as key, *_):
                    dtype = _STORAGES.get(kind.qualified, "")
                    size = DTYPES[dtype][1] if dtype in DTYPES else _OTHER_SIZES.get(dtype, 1)
                    found.append((key, size))
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
        elif isinstance(value, Call):
            waiting.extend(value.arguments)
        elif hasattr(value, "state"):
            waiting.append(value.state)
    return found
