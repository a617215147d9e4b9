"""Reads pickles of unknown origin as data: plain containers, numbers, text and numpy arrays. No code is run.

A pickle is a program that may call any function it names. Here it may name only what a pickle of plain data needs, by
numpy 1 or 2 and in any protocol. It gets a stand-in that checks its arguments, never the real function. All other names
are refused. The program is scanned once before it is run, so that a crafted file cannot exhaust the memory (with an
object larger than the file, or a table index beyond the number of objects) or the time (with tuples that contain each
other many times over: hashing one as a key takes each of its items as often as it occurs).
"""

import io
import os
import pathlib
import pickle
import pickletools
import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np

from mmcl_jax.runtime.errors import MMCLError

_CONTAINERS = "dicts, lists, tuples, sets, numbers, text, bytes and numpy arrays"
_PLAIN_KINDS = "biufcSU"  # of a numpy array: booleans, numbers, bytes, text
_DEEPEST = 100  # containers within containers
# Opcodes that call anything but what `find_class` admits, or that read anything but the file.
_REFUSED_OPCODES = frozenset(
    {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "NEXT_BUFFER"}
)
_MEMO_OPCODES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GET_OPCODES = frozenset({"GET", "BINGET", "LONG_BINGET"})
_TUPLE_OPCODES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_LARGEST_TUPLE = 10_000_000  # items, those in tuples within it included


class PlainPickleError(MMCLError, ValueError):
    """A pickle that is damaged or holds more than plain data. The message is the reason, without the file name."""


def load(path: str | os.PathLike):
    """Loads the pickle file `path`; containers are new, arrays may be read-only.

    The contents must fit into memory. Raises: PlainPickleError.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            return _load(file, path.stat().st_size)
    except OSError as error:
        raise PlainPickleError(f"cannot be read ({error})") from error


def loads(contents: bytes):
    """Loads the pickle `contents`; see `load`. Raises: PlainPickleError."""
    return _load(io.BytesIO(contents), len(contents))


def _load(file, size: int):
    if not size:
        raise PlainPickleError("an empty file")
    try:
        _check_program(file, size)
        file.seek(0)
        return _Plain().plain(_Unpickler(file, encoding="latin1").load())
    except PlainPickleError:
        raise
    except Exception as error:  # a damaged pickle raises anything from KeyError to MemoryError
        raise PlainPickleError(f"no pickle, truncated or damaged ({error!r})") from error


def _check_program(file, size: int) -> None:
    """Reads the opcodes without running them. Raises: PlainPickleError for opcodes that plain data does not need."""
    tuples = _Tuples()
    program: Any = _Bounded(file, size)  # has all that genops needs of a file
    for count, (opcode, argument, place) in enumerate(pickletools.genops(program)):
        position = place or 0
        tuples.follow(opcode, argument, position)
        if opcode.name in _REFUSED_OPCODES:
            raise PlainPickleError(f"opcode {opcode.name} at byte {position}: more than plain data, not run")
        if opcode.name in _MEMO_OPCODES and int(argument or 0) > count:
            raise PlainPickleError(f"damaged: opcode {opcode.name} at byte {position} names place {argument}")
        if opcode.name == "FRAME" and int(argument or 0) > size - position:
            raise PlainPickleError(
                f"no pickle, or truncated: a frame of {argument} bytes begins at byte {position} of {size}"
            )


class _Tuples:
    """Follows a pickle's stack, for how many items its tuples have, those in tuples within them included."""

    def __init__(self):
        self._stack: list[Any] = []  # number of items of each object; None: a mark
        self._memo: dict[int, int] = {}
        self._broken = False

    def follow(self, opcode: pickletools.OpcodeInfo, argument, position: int) -> None:
        """Raises: PlainPickleError for a tuple of too many items."""
        if self._broken:
            return
        try:
            self._follow(opcode, argument, position)
        except (IndexError, KeyError, TypeError):  # a damaged pickle, which ends here when it is run
            self._broken = True

    def _follow(self, opcode: pickletools.OpcodeInfo, argument, position: int) -> None:
        stack, name = self._stack, opcode.name
        if name in _MEMO_OPCODES:
            self._memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in _GET_OPCODES:
            stack.append(self._memo[int(argument)])
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "MARK":
            stack.append(None)
        else:
            taken = self._take(opcode.stack_before)
            items = 1 + sum(taken) if name in _TUPLE_OPCODES else 1
            if items > _LARGEST_TUPLE:
                raise PlainPickleError(
                    f"a tuple at byte {position} contains others many times over, more than {_LARGEST_TUPLE:,} items"
                )
            stack.extend(None if kind is pickletools.markobject else items for kind in opcode.stack_after)

    def _take(self, kinds: list) -> list[int]:
        """Takes what an opcode takes from the stack."""
        stack, taken = self._stack, []
        if pickletools.markobject in kinds:
            while (items := stack.pop()) is not None:
                taken.append(items)
            kinds = kinds[: kinds.index(pickletools.markobject)]
        return taken + [stack.pop() for _ in kinds]


class _Bounded:
    """A file that refuses to read more bytes than it has, before they are allocated."""

    def __init__(self, file, size: int):
        self._file, self._size = file, size
        self.tell, self.readline = file.tell, file.readline

    def read(self, count: int) -> bytes:
        left = self._size - self.tell()
        if count > left:
            raise PlainPickleError(
                f"no pickle, or truncated: an object of {count} bytes begins at byte {self.tell()} of {self._size}"
            )
        return self._file.read(count)


class _Named:
    """Stands in for a function or class that a pickle may name. It can only be called."""

    __slots__ = ("_call", "name")

    def __init__(self, name: str, call: Callable):
        self.name, self._call = name, call

    def __call__(self, *arguments):
        return self._call(*arguments)

    def __setstate__(self, state):
        raise PlainPickleError(f"{self.name} is given a state: more than plain data, not run")


class _Dtype:
    """Stands in for a numpy dtype while a pickle is read."""

    __slots__ = ("dtype",)

    def __init__(self, code, _align=False, _copy=False):
        if not isinstance(code, str) or len(code) > 20:
            raise PlainPickleError(f"a numpy dtype made of {_shorten(code)}, expected a code such as 'f4'")
        try:
            self.dtype = np.dtype(code)
        except TypeError as error:
            raise PlainPickleError(f"numpy dtype {code!r} ({error})") from error
        if self.dtype.kind not in _PLAIN_KINDS or self.dtype.fields or self.dtype.shape:
            raise PlainPickleError(f"an array of dtype {code!r}: more than plain data, expected numbers or text")

    def __setstate__(self, state):
        """Takes the state that numpy writes: version, byte order, subarray, names, fields, size, alignment, flags."""
        plain = isinstance(state, tuple) and len(state) == 8 and state[0] == 3 and state[1] in ("<", ">", "|", "=")
        if not plain or state[2:5] != (None, None, None):
            raise PlainPickleError(f"a numpy dtype of state {_shorten(state)}: more than plain data")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for a numpy array while a pickle is read."""

    __slots__ = ("array",)

    def __init__(self, *arguments):
        if len(arguments) != 3 or arguments[0] is not _NDARRAY or arguments[1] != (0,):
            raise PlainPickleError(f"a numpy array made of {_shorten(arguments[1:])}: more than plain data")
        self.array = np.empty(0)

    def __setstate__(self, state):
        """Takes the state that numpy writes: version, shape, dtype, whether in Fortran order, bytes."""
        if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1:
            raise PlainPickleError(f"a numpy array of state {_shorten(state)}")
        self.array = _to_array(state[4], state[2], state[1], "F" if state[3] else "C")


def _to_array(contents, dtype, shape, order) -> np.ndarray:
    """The array with the bytes `contents`. Raises: PlainPickleError if dtype and shape do not fit them."""
    if isinstance(contents, str):
        contents = contents.encode("latin1")  # Python 2 wrote bytes as text
    if not isinstance(contents, bytes | bytearray) or not isinstance(dtype, _Dtype):
        raise PlainPickleError(f"a numpy array made of {_shorten(contents)}, expected bytes and a dtype")
    if not isinstance(shape, tuple) or any(not isinstance(side, int) or side < 0 for side in shape):
        raise PlainPickleError(f"a numpy array of shape {_shorten(shape)}")
    count = 1
    for side in shape:
        count *= side
    expected = count * dtype.dtype.itemsize
    if expected != len(contents):
        raise PlainPickleError(f"a numpy array of shape {shape} is {expected} bytes, but {len(contents)} are stored")
    if not expected:
        return np.zeros(shape, dtype.dtype)
    return np.frombuffer(contents, dtype.dtype).reshape(shape, order=order if order in ("C", "F") else "C")


def _frombuffer(contents, dtype, shape, order, axis_order=None) -> _Array:
    """An array in protocol 5; with order 'K', an array whose axes have been transposed."""
    stand_in = _Array(_NDARRAY, (0,), b"b")
    array = _to_array(contents, dtype, shape, order)
    stand_in.array = array if axis_order is None else array.transpose(axis_order)
    return stand_in


def _scalar(dtype, contents) -> np.generic:
    scalar: Any = _to_array(contents, dtype, (), "C")[()]
    return scalar


def _encode(text, encoding) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise PlainPickleError(f"_codecs.encode of {_shorten(text)}: more than plain data")
    return text.encode("latin1")


def _bytes(*contents) -> bytes:
    if contents and contents[0] not in ([], ()):
        raise PlainPickleError(f"bytes made of {_shorten(contents)}: more than plain data")
    return b""


def _bytearray(contents=b"", encoding=None) -> bytearray:
    return bytearray(contents if isinstance(contents, bytes) else _encode(contents, encoding))


def _filled(kind: type) -> Callable:
    """Makes a container from a list of its items, or an empty one."""

    def fill(items=()):
        if not isinstance(items, list | tuple):
            raise PlainPickleError(f"a {kind.__name__} made of {_shorten(items)}, expected a list")
        return kind(items)

    return fill


_NDARRAY = _Named("numpy.ndarray", _Array)
_ADMITTED = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Named("numpy.dtype", _Dtype),
    ("_codecs", "encode"): _Named("_codecs.encode", _encode),
    ("collections", "OrderedDict"): _Named("collections.OrderedDict", _filled(dict)),
    ("builtins", "set"): _Named("set", _filled(set)),
    ("builtins", "frozenset"): _Named("frozenset", _filled(frozenset)),
    ("builtins", "bytes"): _Named("bytes", _bytes),
    ("builtins", "bytearray"): _Named("bytearray", _bytearray),
    ("builtins", "complex"): _Named("complex", lambda real, imaginary: complex(float(real), float(imaginary))),
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and numpy 2
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _Named("numpy _reconstruct", _Array)
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _Named("numpy scalar", _scalar)
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _Named("numpy _frombuffer", _frombuffer)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Named:
        module = "builtins" if module == "__builtin__" else module  # as Python 2 called it
        if (module, name) not in _ADMITTED:
            raise PlainPickleError(
                f"names {module}.{name}: more than plain data ({_CONTAINERS}), so it is not loaded. If you trust "
                "the file, load it with the program that wrote it and save plain arrays"
            )
        return _ADMITTED[module, name]

    def persistent_load(self, persistent_id):
        raise PlainPickleError("refers to an object outside of the file: more than plain data, not loaded")


class _Plain:
    """Replaces the stand-ins in what was read, once per container."""

    def __init__(self):
        self._done: dict[int, object] = {}

    def plain(self, value, depth: int = 0):
        """`value` with arrays in place of stand-ins. Raises: PlainPickleError if it holds anything else."""
        if isinstance(value, str | int | float | complex | bytes | bytearray | np.generic) or value is None:
            return value
        if isinstance(value, _Array):
            return value.array
        if isinstance(value, np.ndarray):
            return value
        if id(value) in self._done:
            return self._done[id(value)]
        if depth == _DEEPEST:
            raise PlainPickleError(f"containers within containers, more than {_DEEPEST} deep")
        if isinstance(value, dict | list):
            self._done[id(value)] = value  # before its items, because it may contain itself
            for key in list(value) if isinstance(value, dict) else range(len(value)):
                if isinstance(key, _Array | _Dtype):
                    raise PlainPickleError("a dict's key is an array: more than plain data")
                hash(self.plain(key, depth + 1))  # fails for an array in a tuple
                value[key] = self.plain(value[key], depth + 1)
            return value
        if isinstance(value, tuple | set | frozenset):
            plain = type(value)(self.plain(item, depth + 1) for item in value)
            self._done[id(value)] = plain
            return plain
        raise PlainPickleError(f"holds a {getattr(value, 'name', type(value).__name__)}: more than plain data")


def _shorten(value) -> str:
    return reprlib.repr(value)  # the repr of a container could be as large as the file
