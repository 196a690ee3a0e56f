"""Pickled NumPy files read as data, not run as programs.

A pickle is a program for a small machine that can call anything. This one knows only the instructions that build texts, numbers,
lists, tuples, dictionaries with text keys, and NumPy's arrays and scalars; at any other it stops. Not even NumPy is called with
what the file says: arrays are put together here, from a dtype of a short list and as many bytes as their shape asks for.
(The instructions: https://docs.python.org/3.11/library/pickletools.html; the file around them: numpy.lib.format.)
"""

import io
import math
import mmap
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.stage import ObjectError

_DTYPE = re.compile(r"(?:[iu][1248]|f[248]|b1|[SU]\d{1,6}|O8?)")
_MOST_AXES = 8
_SHORT = 4096  # of a mapped file, longer pieces are not copied

_INSTRUCTIONS = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET"),
    *("LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT"),
    *("BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "EMPTY_LIST", "APPEND", "APPENDS", "LIST", "EMPTY_TUPLE", "TUPLE"),
    *("TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
)

_CODES = [getattr(pickle, name)[0] for name in _INSTRUCTIONS]


def load_pickled(path: Path, content: bytes | mmap.mmap) -> Any:
    """The object in an .npy file that holds one pickled object (`numpy.save` of a dictionary). What was an array in it comes out of
    `plain`.

    `path` is for the messages, `content` are the file's bytes; of a file that is `mapped`, arrays are views. Raises ObjectError:
    not_npy; unsafe_pickle (it asks for more than data); unreadable.
    """
    return _load(path, content, 0, "one pickled dictionary")[0]


def load_pickled_list(path: Path, content: bytes | mmap.mmap) -> list[Any]:
    """The objects in an .npy file with an array of pickled objects, of one axis; otherwise as `load_pickled`."""
    return _load(path, content, 1, "a list of pickled objects")


def mapped(path: Path) -> mmap.mmap:
    """A file's bytes, which the system reads as they are looked at, and forgets when memory is short. Raises ObjectError:
    empty_file."""
    with open(path, "rb") as file:
        if not path.stat().st_size:
            raise ObjectError("empty_file", f"{path} has no bytes: download it again")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _load(path: Path, content: bytes | mmap.mmap, axes: int, wanted: str) -> list[Any]:
    file = _Mapped(content) if isinstance(content, mmap.mmap) else io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = read_header(file)
    except (ValueError, KeyError, EOFError) as error:
        raise ObjectError("not_npy", f"{path} is no NumPy file: {error}") from error
    if len(shape) != axes or not dtype.hasobject:
        raise ObjectError("not_npy", f"{path} holds an array {shape} of {dtype}, not {wanted}")
    try:
        objects = list(_Reader(file, path).load().value)
        if len(objects) != math.prod(shape):
            raise ValueError(f"it states {math.prod(shape)} objects and has {len(objects)}")
        return objects
    except ObjectError:
        raise
    except Exception as error:  # what a broken or forged pickle may raise has no end
        raise ObjectError("unreadable", f"{path} is no whole pickle ({type(error).__name__}: {error})") from error


def plain(value: Any) -> Any:
    """A value of a loaded object: a NumPy array (read-only), a list where it was an array of objects, anything else as it is."""
    return value.value if isinstance(value, _Array) else value


class _Instructions(dict):
    """Instruction code to what does it; one that is not listed stops the machine."""

    def __missing__(self, code: int):
        raise ObjectError("unsafe_pickle", f"the pickle has the instruction {bytes([code])!r}, which plain data does not need")


class _Mapped:
    """A mapped file, to be read from its beginning: long pieces as views of it."""

    def __init__(self, content: mmap.mmap):
        self.content, self.at = content, 0

    def read(self, size: int) -> bytes | memoryview:
        start, self.at = self.at, min(self.at + size, len(self.content))
        return memoryview(self.content)[start : self.at] if size > _SHORT else self.content[start : self.at]

    def readline(self) -> bytes:
        end = self.content.find(b"\n", self.at)
        start, self.at = self.at, end + 1 if end >= 0 else len(self.content)
        return self.content[start : self.at]


class _Reader(pickle._Unpickler):
    """The machine. Python's own in Python: C's allocates what a forged memo index asks for, and cannot leave instructions out."""

    dispatch = _Instructions({code: pickle._Unpickler.dispatch[code] for code in _CODES})

    def __init__(self, file: io.BytesIO | _Mapped, path: Path):
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        found = _NAMES.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise ObjectError("unsafe_pickle", f"{self.path} would call {module}.{name}: it is a program, not data; it was not run")
        return found

    def _decode_string(self, value: bytes | memoryview) -> str:
        return super()._decode_string(bytes(value))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        call = self.stack[-1]
        if not isinstance(call, _Call) or type(arguments) is not tuple:
            raise ObjectError("unsafe_pickle", f"{self.path} would call something that is no part of an array; it was not run")
        self.stack[-1] = _CALLS[call.name](*arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Dtype | _Array):
            raise ObjectError("unsafe_pickle", f"{self.path} would set attributes of a {type(self.stack[-1]).__name__}; it did not")
        self.stack[-1].set_state(*state)

    def load_setitem(self) -> None:
        self._set_items(self.stack[-3], self.stack[-2:])
        del self.stack[-2:]

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._set_items(self.stack[-1], items)

    def _set_items(self, into: Any, items: list) -> None:
        # Python hashes a tuple in a tuple in a tuple … until its stack overflows, so only texts are keys.
        if type(into) is not dict or not all(type(key) is str for key in items[::2]):
            raise ObjectError("unsafe_pickle", f"{self.path} has a dictionary whose keys are not texts")
        into.update(zip(items[::2], items[1::2], strict=True))

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems


class _Call:
    """Stands for a function of NumPy that a pickle names."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class _Dtype:
    """Stands for a numpy.dtype while it is put together."""

    __slots__ = ("dtype",)

    def __init__(self, text: Any, *_: Any):
        if type(text) is not str or not _DTYPE.fullmatch(text):
            raise ValueError("an array of something other than numbers and texts")
        self.dtype = np.dtype(text)

    def set_state(self, *state: Any) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])
        if state[2:5] != (None, None, None):
            raise ValueError("an array of records")


class _Array:
    """Stands for a numpy.ndarray while it is put together; `value` is the array, or the list of what an array of objects holds."""

    __slots__ = ("value",)

    def __init__(self, *_: Any):  # numpy says (ndarray, (0,), b"b"), and the rest with `set_state`
        self.value: Any = None

    def set_state(self, _version: Any, shape: Any, dtype: Any, columns_first: Any, content: Any) -> None:
        if dtype.dtype == object:
            if type(content) is not list:
                raise ValueError("an array of objects that is no list")
            self.value = content
            return
        self.value = _array(content, dtype.dtype, shape, "F" if columns_first else "C")


def _array(content: Any, dtype: np.dtype, shape: Any, order: str) -> np.ndarray:
    if type(shape) is not tuple or len(shape) > _MOST_AXES or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("an array without a shape")
    content = content.encode("latin1") if type(content) is str else content  # Python 2 had no bytes
    if type(content) not in (bytes, bytearray, memoryview) or len(content) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array {shape} of {dtype} that has other bytes than it needs")
    return np.frombuffer(content if type(content) is memoryview else bytes(content), dtype).reshape(shape, order=order)


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    made = _Array()
    made.value = _array(content, dtype.dtype, shape, "F" if order == "F" else "C")
    return made


def _scalar(dtype: Any, content: Any) -> Any:
    return _array(content, dtype.dtype, (), "C").item()


def _bytes(text: Any = "", _encoding: Any = None) -> bytes:
    return text.encode("latin1")


_CALLS = {"dtype": _Dtype, "array": _Array, "buffer": _from_buffer, "scalar": _scalar, "bytes": _bytes}
_NAMES = {
    ("numpy", "ndarray"): _Call("array"),
    ("numpy", "dtype"): _Call("dtype"),
    ("numpy.core.multiarray", "_reconstruct"): _Call("array"),
    ("numpy.core.multiarray", "scalar"): _Call("scalar"),
    ("numpy.core.numeric", "_frombuffer"): _Call("buffer"),
    ("_codecs", "encode"): _Call("bytes"),  # how the protocols before 3 spell bytes, and the next line empty ones
    ("__builtin__", "bytes"): _Call("bytes"),
}
