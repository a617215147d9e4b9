"""How inputs are damaged: bytes, the structure of a format, and files in their tree.

A mutation is a function of a generator of random numbers and of contents (or of a tree). It returns other contents; the
same where it does not apply. It depends on nothing else, so that a name and a seed say what was done.
"""

import bz2
import dataclasses
import gzip
import io
import json
import lzma
import os
import pickle
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable

import numpy as np

from tests.fuzz.trees import Link, Special, Tree

CANARY = "fuzz_canary"  # a module whose import, or a command of whose name, shows that code ran
_DEEP = "@deep@"


@dataclasses.dataclass(frozen=True)
class Step:
    """One mutation of an input."""

    mutation: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Mutation:
    """What is known about a mutation.

    Attributes:
      apply: takes generator and contents (of a file), or generator and tree.
      format: of the files that it applies to; '': every file; 'tree': a whole tree.
      removes: whether clips may be missing afterwards though nothing is wrong with what is left.
    """

    apply: Callable
    format: str
    removes: bool = False


MUTATIONS: dict[str, Mutation] = {}


def _mutation(kind: str, removes: bool = False):
    def register(function):
        MUTATIONS[function.__name__] = Mutation(function, kind, removes)
        return function

    return register


def format_of(name: str, contents) -> str:
    """The format of a file, by what it begins with; '' if it is none of those that have mutations."""
    if not isinstance(contents, bytes) or not contents:
        return ""
    if contents[:2] == b"PK":
        return "torch" if name.endswith((".pt", ".pth")) else "npz" if name.endswith(".npz") else "zip"
    if contents[:2] == b"\x1f\x8b" or contents[:6] == b"\xfd7zXZ\0" or contents[257:262] == b"ustar":
        return "tar"
    if contents[:6] == b"\x93NUMPY":
        return "npy"
    if contents[:6] == b"MATLAB":
        return "mat"
    if contents[:1] in b"{[":
        return "json"
    if contents[:1] == b"\x80" and contents[-1:] == b".":
        return "pickle"
    return "text" if max(contents) < 128 and min(contents) >= 9 else ""


def formats_of(tree: Tree) -> set[str]:
    """The formats of a tree's files."""
    return {format_of(name, node) for name, node in tree.items()} - {""}


def apply(tree: Tree, steps: list[Step]) -> Tree:
    """The tree after these mutations."""
    for step in steps:
        mutation, rng = MUTATIONS[step.mutation], np.random.default_rng(step.seed)
        if mutation.format == "tree":
            tree = tree and mutation.apply(rng, dict(tree))
            continue
        fitting = [
            name
            for name, node in tree.items()
            if isinstance(node, bytes) and mutation.format in ("", format_of(name, node))
        ]
        if fitting:
            name = fitting[int(rng.integers(len(fitting)))]
            tree = {**tree, name: mutation.apply(rng, tree[name])}
    return tree


def removes(steps: list[Step]) -> bool:
    """Whether clips may be missing after these mutations."""
    return any(MUTATIONS[step.mutation].removes for step in steps)


def _pick(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


# Bytes.


def _span(rng: np.random.Generator, length: int) -> tuple[int, int]:
    start = int(rng.integers(length + 1))
    return start, min(length, start + int(_pick(rng, (1, 2, 4, 16, 100, 512, 4096))))


@_mutation("")
def truncate(rng, contents):
    return contents[: int(rng.integers(len(contents) + 1))]


@_mutation("")
def cut_the_end(rng, contents):
    return contents[: -int(rng.integers(1, 40))]


@_mutation("")
def flip_a_bit(rng, contents):
    spoiled = bytearray(contents)
    if spoiled:
        spoiled[int(rng.integers(len(spoiled)))] ^= 1 << int(rng.integers(8))
    return bytes(spoiled)


@_mutation("")
def flip_a_bit_of_the_head(rng, contents):
    spoiled = bytearray(contents)
    if spoiled:
        spoiled[int(rng.integers(min(len(spoiled), 256)))] ^= 1 << int(rng.integers(8))
    return bytes(spoiled)


@_mutation("")
def change_bytes(rng, contents):
    spoiled = bytearray(contents)
    for _ in range(int(rng.integers(1, 20)) if spoiled else 0):
        spoiled[int(rng.integers(len(spoiled)))] = int(rng.integers(256))
    return bytes(spoiled)


@_mutation("")
def zero_a_span(rng, contents):
    start, end = _span(rng, len(contents))
    return contents[:start] + bytes(end - start) + contents[end:]


@_mutation("")
def remove_a_span(rng, contents):
    start, end = _span(rng, len(contents))
    return contents[:start] + contents[end:]


@_mutation("")
def insert_bytes(rng, contents):
    start, _ = _span(rng, len(contents))
    return contents[:start] + rng.bytes(int(_pick(rng, (1, 2, 8, 100)))) + contents[start:]


@_mutation("")
def repeat_a_span(rng, contents):
    start, end = _span(rng, len(contents))
    return contents[:end] + contents[start:end] * int(_pick(rng, (1, 3, 100))) + contents[end:]


@_mutation("")
def odd_number(rng, contents):
    """An integer of two, four or eight bytes becomes one that is odd for a size, a count or an offset."""
    width = int(_pick(rng, (2, 4, 8)))
    value = int(_pick(rng, (0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1, 65)))
    start = int(rng.integers(len(contents) + 1))
    order = str(_pick(rng, ("little", "big")))
    return contents[:start] + value.to_bytes(width, order) + contents[start + width :]


@_mutation("")
def something_else(rng, contents):
    return _pick(
        rng,
        (
            b"",
            b"\n",
            b"\0" * 1000,
            rng.bytes(300),
            b"<!DOCTYPE html><html><body>quota exceeded</body></html>\n",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5800000\n",
            b"PK\x03\x04",
            b"PK\x05\x06" + bytes(18),
            b"\x80\x04.",
            b"\x93NUMPY\x01\x00",
            b"{}",
            b"[]",
            b"null",
            gzip.compress(contents, mtime=0),
        ),
    )


# Text.

_ODD_WORDS = (
    *(b"nan", b"inf", b"-inf", b"1e39", b"1e400", b"", b"x", b"1,5", b"--1", b"-1", b"0", b"1e-5", b"0x1", b"-1.#IND"),
    *(b"9" * 5000, b"1" * 40, b"\xff\xfe", b"\xe9", "é".encode(), b"\0", b"S999C999P999R999A999", b"../x", b"25.0"),
)


@_mutation("text", removes=True)
def remove_a_line(rng, contents):
    lines = contents.split(b"\n")
    del lines[int(rng.integers(len(lines)))]
    return b"\n".join(lines)


@_mutation("text")
def repeat_a_line(rng, contents):
    lines = contents.split(b"\n")
    place = int(rng.integers(len(lines)))
    return b"\n".join(lines[:place] + [lines[place]] * int(_pick(rng, (2, 3, 100))) + lines[place + 1 :])


@_mutation("text")
def swap_lines(rng, contents):
    lines = contents.split(b"\n")
    first, second = (int(place) for place in rng.integers(len(lines), size=2))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


@_mutation("text")
def odd_word(rng, contents):
    lines = contents.split(b"\n")
    place = int(rng.integers(len(lines)))
    separator = b"," if b"," in lines[place] else b" "
    words = lines[place].split(separator)
    words[int(rng.integers(len(words)))] = _pick(rng, _ODD_WORDS)
    lines[place] = separator.join(words)
    return b"\n".join(lines)


@_mutation("text")
def odd_count(rng, contents):
    """A line that is a number, as counts are, becomes another number."""
    lines = contents.split(b"\n")
    counts = [row for row, line in enumerate(lines) if line.strip().isdigit()]
    if counts:
        lines[_pick(rng, counts)] = _pick(rng, (b"0", b"-1", b"2", b"24", b"26", b"1000000000", b"1" + b"0" * 400))
    return b"\n".join(lines)


@_mutation("text")
def missing_word(rng, contents):
    lines = contents.split(b"\n")
    place = int(rng.integers(len(lines)))
    lines[place] = b" ".join(lines[place].split()[: int(rng.integers(12))])
    return b"\n".join(lines)


@_mutation("text")
def other_encoding(rng, contents):
    text = contents.decode("ascii")
    return _pick(
        rng,
        (
            text.encode("utf-8-sig"),
            text.encode("utf-16"),
            contents.replace(b"\n", b"\r\n"),
            contents.replace(b"\n", b"\r"),
            contents.replace(b" ", b"\t"),
            contents.replace(b".", b","),
            contents.replace(b"\n", b"\n\n"),
            contents.rstrip(b"\n"),
            contents + b"\n\n \n",
        ),
    )


# Values, as JSON and pickles hold them.

_ODD_VALUES = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, -(10**30), 0.5, 1e30, 1e39, float("nan"), float("inf")),
    *("", "x", "a\0", "\0", "\ud800", "é", "../x", "/etc/passwd", "x" * 3000, [], {}, [[]], {"": ""}, [None], _DEEP),
    *("9" * 30, [1, 2, 3], {"a": 1}, "nan", -0.0, 10**5000),
)


def _descend(rng: np.random.Generator, root):
    """(container, key) somewhere within `root`, a list or a dict."""
    top: list | dict = [root]
    container, place = top, 0
    while True:
        value = container[place]
        if not isinstance(value, list | dict) or not value or (rng.random() < 0.25 and container is not top):
            return container, place
        container = value
        place = _pick(rng, list(value) if isinstance(value, dict) else range(len(value)))


def _change_value(rng: np.random.Generator, root, numpy_too: bool):
    """`root` with one value changed, in place where it can be."""
    holder = [root]
    container, place = _descend(rng, root)
    if container == [root]:
        container = holder
    value = container[place]
    if numpy_too and isinstance(value, np.ndarray) and rng.random() < 0.7:
        container[place] = _change_array(rng, value)
        return holder[0]
    kind = int(rng.integers(9))
    if kind in (0, 1, 2):
        container[place] = _pick(rng, _ODD_VALUES)
    elif kind == 3 and container is not holder:
        del container[place]
    elif kind == 4 and isinstance(container, list) and container is not holder:
        container.extend([value] * int(_pick(rng, (1, 2, 100))))
    elif kind == 4 and isinstance(container, dict):
        container[_pick(rng, ("", "x", "\ud800", "a\0", str(place) + " "))] = container.pop(place)
    elif kind == 5:
        container[place] = _pick(rng, ([value], {"x": value}, {"": value}, [value, value]))
    elif kind == 6 and isinstance(value, list | dict) and value:
        container[place] = next(iter(value.values())) if isinstance(value, dict) else value[0]
    elif kind == 7:
        container[place] = _other_type(value)
    elif isinstance(value, list):
        container[place] = value[::-1] if rng.random() < 0.5 else value[: len(value) // 2]
    elif isinstance(value, dict):
        value[_pick(rng, ("x", "", "label", "type"))] = _pick(rng, _ODD_VALUES)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        container[place] = value + _pick(rng, (1, -1, 0.5, 10**6))
    return holder[0]


def _other_type(value):
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return float(value) if abs(value) < 1e15 else str(value)[:100]
    if isinstance(value, float):
        return str(value)
    if isinstance(value, str):
        return [value]
    return dict(enumerate(value)) if isinstance(value, list) else str(value)[:100]


@_mutation("json", removes=True)
def json_value(rng, contents):
    try:
        root = json.loads(contents)
    except (ValueError, RecursionError):
        return contents
    for _ in range(int(_pick(rng, (1, 1, 2)))):
        root = _change_value(rng, root, numpy_too=False)
    text = _dump(root)
    return text.replace(json.dumps(_DEEP), "[" * 5000 + "]" * 5000).encode("utf-8", "surrogatepass")


def _dump(root) -> str:
    """JSON, with whole numbers of any length."""

    def default(value):
        return str(value)

    numbers: list[str] = []

    def replaced(value):
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**4000:
            numbers.append("1" + "0" * 5000)
            return f"@number{len(numbers) - 1}@"
        if isinstance(value, dict):
            return {str(key): replaced(inner) for key, inner in value.items()}
        return [replaced(inner) for inner in value] if isinstance(value, list) else value

    text = json.dumps(replaced(root), default=default)
    for place, number in enumerate(numbers):
        text = text.replace(f'"@number{place}@"', number)
    return text


@_mutation("json")
def json_form(rng, contents):
    return _pick(
        rng,
        (
            b"\xef\xbb\xbf" + contents,
            contents.decode("utf-8", "replace").encode("utf-16"),
            contents.replace(b'"', b"'"),
            contents.rstrip()[:-1] + b",}",
            contents + contents,
            contents.replace(b":", b": NaN, ", 1),
            b"[" * 100_000,
            b'{"a":' * 100_000,
            contents.replace(b"\n", b"\r\n"),
        ),
    )


@_mutation("json")
def json_names_code(rng, contents):
    """A string that names a class, or any string, becomes the name of a module whose import would show."""
    named = [word for word in contents.split(b'"') if b"." in word and b" " not in word and b"\n" not in word]
    words = named or [word for word in contents.split(b'"')[1::2] if word]
    if not words:
        return contents
    evil = _pick(rng, (f"{CANARY}.Evil", f"{CANARY}", f"{CANARY}.{CANARY}.Evil")).encode()
    return contents.replace(b'"' + _pick(rng, words) + b'"', b'"' + evil + b'"')


# Arrays.

_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i8", "u1", "u8", "c16", "S3", "U3", "?", ">f4", ">i8", "O", "M8[s]")


def _change_array(rng: np.random.Generator, array: np.ndarray):
    kind = int(rng.integers(8))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == 0:
                return array.astype(_pick(rng, _DTYPES))
            if kind == 1:
                return _pick(
                    rng,
                    (
                        array[:0],
                        array[..., :1],
                        array[..., :-1],
                        array.T,
                        array[None],
                        array.ravel(),
                        array[:1],
                        np.concatenate([array, array]),
                        array[::-1],
                        np.asfortranarray(array),
                        array.reshape(-1)[0],
                    ),
                )
            if kind in (2, 3, 4):
                changed = np.array(array)
                value = _pick(rng, (np.nan, np.inf, -np.inf, 1e30, 1e39, -1, 0, 1, 2**31, 2**63 - 1, 250, 1e-300))
                changed.reshape(-1)[int(rng.integers(changed.size))] = value
                return changed
            if kind == 5:
                return np.zeros_like(array)
            if kind == 6:
                return _pick(rng, (array.tolist(), array * 1000, -array, array * np.nan, np.array(None), np.array("x")))
            changed = np.array(array)
            place = int(rng.integers(len(changed)))
            changed[place] = changed[int(rng.integers(len(changed)))]
            return changed
    except (TypeError, ValueError, OverflowError, IndexError):
        return array


class Payload:
    """A pickle of it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _payload(rng: np.random.Generator) -> Payload:
    import importlib

    return _pick(
        rng,
        (
            Payload(importlib.import_module, CANARY),
            Payload(os.system, f"touch {CANARY}"),
            Payload(exec, f"import {CANARY}"),
            Payload(eval, f"__import__({CANARY!r})"),
            Payload(getattr, "x", "upper"),
            Payload(np.zeros, 10),
            Payload(random.Random),
        ),
    )


def _load_pickle(contents: bytes):
    """A pickle of ours or a mutated one; what it may name is what such pickles need."""
    from mmcl_jax.runtime import plain_pickle

    try:
        return plain_pickle.loads(contents)
    except Exception:  # a mutated one; nothing is made of it
        return None


@_mutation("pickle", removes=True)
def pickle_value(rng, contents):
    root = _load_pickle(contents)
    if not isinstance(root, list | dict):
        return contents
    for _ in range(int(_pick(rng, (1, 1, 2)))):
        root = _change_value(rng, root, numpy_too=True)
    return _pickled(rng, _deepened(root))


def _pickled(rng, root) -> bytes:
    try:
        return pickle.dumps(root, protocol=int(_pick(rng, (2, 3, 4, 5))))
    except (ValueError, UnicodeEncodeError, RecursionError):  # a lone surrogate in a name
        return pickle.dumps(str(type(root)))


def _deepened(value):
    """`value` with each mark of depth replaced by 40 pairs within each other."""
    if isinstance(value, str) and value == _DEEP:
        pair = (0,)
        for _ in range(40):
            pair = (pair, pair)
        return pair
    if isinstance(value, dict):
        return {key: _deepened(inner) for key, inner in value.items()}
    return [_deepened(inner) for inner in value] if isinstance(value, list) else value


@_mutation("pickle")
def pickle_that_calls(rng, contents):
    root = _load_pickle(contents)
    if not isinstance(root, list | dict):
        return contents
    container, place = _descend(rng, root)
    container[place] = _payload(rng)
    return _pickled(rng, root if container is not None and container != [root] else _payload(rng))


@_mutation("pickle")
def pickle_key_of_pairs(rng, contents):
    """A dict with a key of 40 pairs within each other, which takes 2^40 steps to hash."""
    pairs = b"".join(b"\x94h" + bytes([place]) + b"\x86" for place in range(40))
    return b"\x80\x04}(K\x00\x85" + pairs + b"K\x01u."


# Archives of arrays.


def _npz_members(contents: bytes) -> dict[str, bytes] | None:
    try:
        with zipfile.ZipFile(io.BytesIO(contents)) as archive:
            return {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except Exception:  # a mutated one
        return None


def _npz(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member, compression)
    return stream.getvalue()


def _npy(value, allow_pickle: bool = True) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asanyarray(value), allow_pickle=allow_pickle)
    return stream.getvalue()


@_mutation("npz")
def npz_array(rng, contents):
    members = _npz_members(contents)
    if not members:
        return contents
    name = _pick(rng, list(members))
    try:
        array = np.load(io.BytesIO(members[name]), allow_pickle=False)
        changed = _change_array(rng, array)
        members[name] = _npy(changed)
    except Exception:  # no array, or one that cannot be written
        return contents
    return _npz(members, int(_pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))


@_mutation("npz")
def npz_members(rng, contents):
    members = _npz_members(contents)
    if not members:
        return contents
    name = _pick(rng, list(members))
    kind = int(rng.integers(5))
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[_pick(rng, (f"../{name}", "x.npy", name.upper(), name.removesuffix(".npy"), "é.npy"))] = members.pop(
            name
        )
    elif kind == 2:
        members[name] = _npy(np.array([_payload(rng)], dtype=object))
    elif kind == 3:
        members[name] = _pick(rng, (b"", b"x", members[name] + b"0", _npy(_pick(rng, (0, "x", [1, 2], 1e30)))))
    else:
        members["extra.npy"] = members[name]
    return _npz(members, int(_pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))


@_mutation("npz")
def npz_header(rng, contents):
    """The header of a member declares another shape, type or order; the archive's checksums are right."""
    members = _npz_members(contents)
    if not members:
        return contents
    name = _pick(rng, list(members))
    members[name] = npy_header(rng, members[name])
    return _npz(members)


@_mutation("npy")
def npy_header(rng, contents):
    try:
        stream = io.BytesIO(contents)
        version = np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        body = stream.read()
    except Exception:  # a mutated one
        return contents
    shown = _pick(
        rng,
        (
            f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': (1000000000000,), }}",
            f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': (1{'0' * 400},), }}",
            f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': ({'9' * 5000},), }}",
            f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': (-1,), }}",
            f"{{'descr': '{dtype.str}', 'fortran_order': True, 'shape': {shape}, }}",
            f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}, }}",
            f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}",
            f"{{'descr': [('a', '{dtype.str}')], 'fortran_order': False, 'shape': {shape}, }}",
            f"__import__('{CANARY}')",
            "{" * 60000,
            "",
        ),
    ).encode()
    shown += b" " * (-(len(shown) + 11) % 64) + b"\n"
    if len(shown) >= 2**16:
        shown = shown[: 2**16 - 1]
    return np.lib.format.magic(1, 0) + struct.pack("<H", len(shown)) + shown + body if version else contents


@_mutation("npy")
def npy_array(rng, contents):
    try:
        return _npy(_change_array(rng, np.load(io.BytesIO(contents), allow_pickle=False)))
    except Exception:  # a mutated one, or values that cannot be written
        return contents


# ZIP archives, those of arrays and of tensors included.


def _zip_field(rng, contents):
    """A field of a header of the archive becomes an odd number: version, flags, method, checksum, sizes, offsets."""
    starts = []
    for magic, length in ((b"PK\x03\x04", 30), (b"PK\x01\x02", 46), (b"PK\x05\x06", 22)):
        place = contents.find(magic)
        while place >= 0:
            starts.append((place, length))
            place = contents.find(magic, place + 4)
    if not starts:
        return contents
    start, length = _pick(rng, starts)
    at = start + int(rng.integers(4, length - 1))
    value = _pick(rng, (b"\x00\x00", b"\xff\xff", b"\x01\x00", b"\x08\x00", b"\x63\x00", b"\xff\x7f", b"\x09\x00"))
    return contents[:at] + value + contents[at + 2 :]


for _format in ("npz", "zip", "torch"):
    MUTATIONS[f"{_format}_field"] = Mutation(_zip_field, _format)


@_mutation("zip", removes=True)
def zip_members(rng, contents):
    members = _npz_members(contents)
    if not members:
        return contents
    stream = io.BytesIO()
    compression = int(_pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    changed = _pick(rng, list(members))
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", compression) as archive:
        warnings.simplefilter("ignore")
        for name, member in members.items():
            if name != changed:
                archive.writestr(zipfile.ZipInfo(name), member, compression)
                continue
            kind = int(rng.integers(6))
            if kind == 0:
                renamed = _pick(rng, (f"../../{name}", f"/tmp/{name}", f"{name}/", f"a/{'x' * 300}{name}", f"é{name}"))
                archive.writestr(zipfile.ZipInfo(renamed), member, compression)
            elif kind == 1:
                archive.writestr(zipfile.ZipInfo(name), member, compression)
                archive.writestr(zipfile.ZipInfo(f"other/{name}"), member, compression)
                archive.writestr(zipfile.ZipInfo(name), member[:20], compression)
            elif kind == 2:
                link = zipfile.ZipInfo(name)
                link.create_system, link.external_attr = 3, 0o120777 << 16
                archive.writestr(link, _pick(rng, ("/etc/passwd", name, "../x")))
            elif kind == 3:
                archive.writestr(zipfile.ZipInfo(name), bytes(50_000_000), zipfile.ZIP_DEFLATED)
            elif kind == 4:
                archive.writestr(zipfile.ZipInfo(name), member[: len(member) // 2], compression)
    return stream.getvalue()


# Tar archives.

_COMPRESSIONS = ((b"\x1f\x8b", gzip), (b"\xfd7zXZ\0", lzma), (b"BZh", bz2))


def _unpacked(contents: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    for magic, module in _COMPRESSIONS:
        if contents.startswith(magic):
            compress = (lambda data: gzip.compress(data, mtime=0)) if module is gzip else module.compress
            return module.decompress(contents), compress
    return contents, lambda data: data


@_mutation("tar")
def tar_inside(rng, contents):
    """Bytes change inside the compression, whose checksums are right."""
    try:
        data, compress = _unpacked(contents)
    except Exception:  # a mutated one
        return contents
    blocks = range(0, len(data), 512)
    at = _pick(rng, blocks) + int(rng.integers(160)) if rng.random() < 0.5 else int(rng.integers(len(data)))
    change = _pick(rng, (b"\xff", b"\0" * 8, b"\0" * 512, b"7" * 11, b"x", rng.bytes(4)))
    return compress(data[:at] + change + data[at + len(change) :])


@_mutation("tar", removes=True)
def tar_members(rng, contents):
    try:
        data, compress = _unpacked(contents)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = [(member, archive.extractfile(member).read() if member.isfile() else b"") for member in archive]
    except Exception:  # a mutated one
        return contents
    place = int(rng.integers(len(members)))
    member, body = members[place]
    kind = int(rng.integers(9))
    added = []
    if kind == 0:
        member.name = _pick(
            rng,
            (
                f"../{member.name}",
                f"/tmp/{member.name}",
                f"a/{'x' * 300}.json",
                "\udce9.json",
                f"é{member.name}",
                f"a/{'b/' * 200}{member.name}",
                f"{member.name}\0x",
            ),
        )
    elif kind == 1:
        member.type = _pick(rng, (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE))
        member.linkname = _pick(rng, (member.name, "/etc/passwd", "../x", "nowhere"))
        body, member.size = b"", 0
    elif kind == 2:
        member.mtime = _pick(rng, (-1, 2**33, 2**63, 1e20))
    elif kind == 3:
        added = [(member, body)]
    elif kind == 4:
        member.pax_headers = _pick(
            rng,
            (
                {"size": "100000000000"},
                {"path": "x\0y"},
                {"GNU.sparse.realsize": "100000000000", "GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
                {"mtime": "nan"},
                {"size": "-1"},
                {"path": "x" * 5000},
            ),
        )
    elif kind == 5:
        body = body[: len(body) // 2]
        member.size = len(body)
    elif kind == 6:
        member.mode = _pick(rng, (0, 0o7777))
    elif kind == 7:
        added = [(tarfile.TarInfo("extra.json"), b"")]
    else:
        members[place - 1], members[place] = members[place], members[place - 1]
        member, body = members[place]
    members[place] = (member, body)
    stream = io.BytesIO()
    form = int(_pick(rng, (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)))
    try:
        with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
            for one, inner in (*members, *added):
                archive.addfile(one, io.BytesIO(inner))
    except (ValueError, OSError, OverflowError, TypeError, UnicodeError):
        return contents
    return compress(stream.getvalue())


# MATLAB files.


@_mutation("mat")
def mat_array(rng, contents):
    import scipy.io

    try:
        stored = {k: v for k, v in scipy.io.loadmat(io.BytesIO(contents)).items() if not k.startswith("__")}
        name = _pick(rng, list(stored))
        kind = int(rng.integers(6))
        if kind == 0:
            stored[_pick(rng, ("x", "SW2", name.upper()))] = stored.pop(name)
        elif kind == 1:
            stored[name] = _pick(rng, ("text", {"a": 1}, np.array([stored[name], None], dtype=object), 1 + 2j))
        else:
            stored[name] = _change_array(rng, stored[name])
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scipy.io.savemat(stream, stored, do_compression=bool(rng.random() < 0.5))
        return stream.getvalue()
    except Exception:  # a mutated one, or values that cannot be written
        return contents


# Files of PyTorch.


@_mutation("torch")
def torch_value(rng, contents):
    import torch

    try:
        stored = torch.load(io.BytesIO(contents), weights_only=True)
    except Exception:  # a mutated one
        return contents
    name = _pick(rng, list(stored))
    tensor = stored[name]
    kind = int(rng.integers(13))
    legacy = {}
    try:
        if kind in (0, 1, 2):
            changed = _change_array(rng, tensor.numpy())
            stored[name] = torch.tensor(changed) if isinstance(changed, np.ndarray) else changed
        elif kind == 3:
            del stored[name]
        elif kind == 4:
            stored[f"{name}x"] = stored.pop(name)
        elif kind == 5:
            stored[name] = torch.zeros(1).expand(10**6, 10**6)
        elif kind == 6:
            stored[name] = tensor.to_sparse() if tensor.ndim else tensor
        elif kind == 7:
            stored[name] = _payload(rng)
        elif kind == 8:
            stored = {"state_dict": stored, "best_acc": np.float64(0.9), "epoch": 3}
        elif kind == 9:
            stored = {f"module.model.{key}": value for key, value in stored.items()}
        elif kind == 10:
            stored[name] = _pick(rng, (tensor.to(torch.bfloat16), tensor.to(torch.complex64), tensor.to(torch.int8)))
        elif kind == 11:
            legacy = {"_use_new_zipfile_serialization": False}
        else:
            stored = {"a": stored, "b": {"c": dict(stored)}}
        stream = io.BytesIO()
        torch.save(stored, stream, **legacy)
        return stream.getvalue()
    except (TypeError, ValueError, RuntimeError):
        return contents


@_mutation("torch")
def torch_bit_of_a_tensor(rng, contents):
    """One bit of the numbers, not of a header."""
    members = _npz_members(contents)
    names = [name for name in members or () if "/data/" in name and members[name]]
    if not names:
        return contents
    body = members[_pick(rng, names)]
    at = contents.find(body)
    if at < 0:
        return contents
    at += int(rng.integers(len(body)))
    return contents[:at] + bytes([contents[at] ^ (1 << int(rng.integers(8)))]) + contents[at + 1 :]


# The tree.


@_mutation("tree", removes=True)
def remove_a_file(rng, tree):
    del tree[_pick(rng, list(tree))]
    return tree


@_mutation("tree", removes=True)
def rename_a_file(rng, tree):
    name = _pick(rng, list(tree))
    folder, _, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    renamed = _pick(
        rng,
        (
            f"\udce9{base}",
            f"{base.upper()}",
            f"{'x' * 200}{dot}{suffix}",
            f".{base}",
            f"{base}.txt",
            f" {base}",
            f"{stem}\n{dot}{suffix}",
            f"a b{dot}{suffix}",
            f"{stem}2{dot}{suffix}",
        ),
    )
    tree[f"{folder}/{renamed}" if folder else renamed] = tree.pop(name)
    return tree


@_mutation("tree")
def link_a_file(rng, tree):
    name = _pick(rng, list(tree))
    base = name.rpartition("/")[2]
    tree[name] = Link(_pick(rng, (base, "nowhere", "/dev/null", "/dev/zero", ".", "/etc/hostname")))
    return tree


@_mutation("tree")
def folder_for_a_file(rng, tree):
    tree[_pick(rng, list(tree))] = Special("folder")
    return tree


@_mutation("tree")
def pipe_for_a_file(rng, tree):
    tree[_pick(rng, list(tree))] = Special("pipe")
    return tree


@_mutation("tree")
def swap_files(rng, tree):
    first, second = _pick(rng, list(tree)), _pick(rng, list(tree))
    tree[first], tree[second] = tree[second], tree[first]
    return tree


@_mutation("tree")
def copy_a_file(rng, tree):
    name = _pick(rng, list(tree))
    folder, _, base = name.rpartition("/")
    prefix = f"{folder}/" if folder else ""
    tree[_pick(rng, (f"{prefix}copy/{base}", f"{prefix}x{base}", f"{prefix}{base}~"))] = tree[name]
    return tree
