"""Plain pickles of every protocol are read unchanged; pickles that could run code or fill the memory are refused."""

import collections
import os
import pathlib
import pickle
import pickletools
import struct
import subprocess
import sys

import numpy as np
import pytest

from mmcl_jax.runtime import plain_pickle

ARRAYS = [
    np.arange(24, dtype=np.float16).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24, dtype=np.int32).reshape(2, 3, 4).transpose(2, 0, 1),
    np.arange(5, dtype=">f4"),
    np.zeros((0, 3), np.float32),
    np.array(3.5),
    np.array([True, False]),
    np.array([b"ab", b"c"]),
    np.array(["ab", "c"]),
    np.arange(10.0)[::2],
    np.array([1 + 2j]),
]
CONTAINERS = [
    {"a": 1, 2: [3.5, None, True], (1, "b"): b"bytes", "empty": b""},
    collections.OrderedDict(x=1, y=[2]),
    [{1, 2}, frozenset({"a"}), (), (1, (2, (3,))), "\xe4\u2713", 10**30, -1.5, 1 + 2j, bytearray(b"ab")],
    [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("a")],
]


def same(actual, expected) -> bool:
    if isinstance(expected, np.ndarray):
        return (
            actual.dtype == expected.dtype
            and actual.shape == expected.shape
            and actual.tobytes() == (expected.tobytes())
        )
    if isinstance(expected, dict):
        return type(actual) is dict and actual == dict(expected)
    return actual == expected and all(type(a) is type(b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back(protocol):
    for value in [*ARRAYS, *CONTAINERS]:
        assert same(plain_pickle.loads(pickle.dumps(value, protocol)), value), value
    nested = plain_pickle.loads(pickle.dumps({"scores": [("name", array) for array in ARRAYS]}, protocol))
    for (name, actual), expected in zip(nested["scores"], ARRAYS, strict=True):
        assert name == "name" and type(actual) is np.ndarray and same(actual, expected)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpy_1_and_2_name_their_functions_differently(protocol):
    contents = pickle.dumps({"a": ARRAYS[0], "b": np.float32(2)}, protocol)
    for core in (b"numpy.core", b"numpy._core"):
        if protocol == 2:  # names are lines
            renamed = contents.replace(b"cnumpy._core.", b"c" + core + b".")
        else:
            renamed = bytearray(contents)
            for word in (b"numpy._core.multiarray", b"numpy._core.numeric"):
                other = word.replace(b"numpy._core", core)
                renamed = renamed.replace(bytes([0x8C, len(word)]) + word, bytes([0x8C, len(other)]) + other)
            renamed = pickle.PROTO + bytes([protocol]) + bytes(renamed[11:])  # without the frame and its length
        loaded = plain_pickle.loads(bytes(renamed))
        assert same(loaded["a"], ARRAYS[0]) and loaded["b"] == np.float32(2)


def test_a_pickle_of_python_2():
    """As cPickle of Python 2.7 with numpy 1 writes {'a': numpy.arange(3, dtype='f4')} in protocol 2."""
    contents = (
        b"\x80\x02}q\x01U\x01acnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04"
        b"(K\x01K\x03\x85cnumpy\ndtype\nq\x05U\x02f4K\x00K\x01\x87Rq\x06(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89U\x0c\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@tbs."
    )
    np.testing.assert_array_equal(plain_pickle.loads(contents)["a"], np.arange(3, dtype=np.float32))


def test_shared_and_circular_containers_stay_so():
    shared = [ARRAYS[0]]
    circle = {"first": shared, "second": shared}
    circle["self"] = circle
    loaded = plain_pickle.loads(pickle.dumps(circle))
    assert loaded["first"] is loaded["second"]
    assert loaded["self"] is loaded
    assert same(loaded["first"][0], ARRAYS[0])


class Calls:
    """A pickle of this calls `function(*arguments)` when it is read with pickle.load."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


HARMFUL = {
    "os.system": (Calls(os.system, "touch ran"), r"names posix.system: more than plain data"),
    "eval": (Calls(eval, "open('ran', 'w')"), r"names builtins.eval"),
    "exec": ([1, {"a": Calls(exec, "open('ran', 'w')")}], r"names builtins.exec"),
    "subprocess": (Calls(subprocess.Popen, ["touch", "ran"]), r"names (subprocess|commands).Popen"),
    "getattr": (Calls(getattr, "a", "upper"), r"names builtins.getattr"),
    "a class": (pathlib.PurePosixPath("a"), r"names pathlib.PurePosixPath"),
    "another container": (collections.deque([1]), r"names collections.deque"),
    "an object array": (np.array([1, "a", None], dtype=object), r"dtype 'O8': more than plain data"),
    "a structured array": (np.zeros(2, dtype="i4,f4"), r"more than plain data"),
    "a masked array": (np.ma.array([1, 2], mask=[0, 1]), r"names numpy.ma"),
    "a matrix": (np.zeros((2, 2)).view(np.matrix), r"names numpy.*matrix"),
    "dates": (np.array(["2020-01-01"], dtype="M8[D]"), r"more than plain data"),
}


@pytest.mark.parametrize("kind", HARMFUL)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_is_more_than_plain_is_refused_by_name(tmp_path, monkeypatch, kind, protocol):
    monkeypatch.chdir(tmp_path)
    value, message = HARMFUL[kind]
    with pytest.raises(plain_pickle.PlainPickleError, match=message):
        plain_pickle.loads(pickle.dumps(value, protocol))
    assert not list(tmp_path.iterdir())


def program(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


NDARRAY, DTYPE = name("numpy", "ndarray"), name("numpy", "dtype")
RECONSTRUCT = name("numpy._core.multiarray", "_reconstruct")
F4 = DTYPE + b"\x8c\x02f4\x89\x88\x87R"
BIG = b"J" + struct.pack("<i", 2**31 - 1)  # an int
CRAFTED = {
    "extension 1": (b"\x82\x01", "opcode EXT1"),
    "extension 2": (b"\x83\x01\x00", "opcode EXT2"),
    "extension 4": (b"\x84\x01\x00\x00\x00", "opcode EXT4"),
    "persistent id": (b"Pabc\n", "opcode PERSID"),
    "binary persistent id": (b"K\x01Q", "opcode BINPERSID"),
    "old instance": (b"(ios\nsystem\n", "opcode INST"),
    "old object": (b"(" + name("os", "system") + b"o", "opcode OBJ"),
    "new object": (name("builtins", "set") + b")\x81", "opcode NEWOBJ"),
    "new object with keywords": (name("builtins", "set") + b")}\x92", "opcode NEWOBJ_EX"),
    "buffer from outside": (b"\x97", "opcode NEXT_BUFFER"),
    "huge bytes": (b"\x8e" + struct.pack("<Q", 2**50), "truncated: an object of 1125899906842624 bytes"),
    "huge text": (b"\x8d" + struct.pack("<Q", 2**40), "truncated: an object of"),
    "huge byte array": (b"\x96" + struct.pack("<Q", 2**62), "truncated: an object of"),
    "huge frame": (b"\x95" + struct.pack("<Q", 2**45) + b"N", "truncated: a frame of"),
    "huge number": (b"\x8b" + struct.pack("<i", 2**30), "truncated: an object of"),
    "far memo": (b"Nr\xff\xff\xff\xff", "damaged: opcode LONG_BINPUT at byte 3 names place 4294967295"),
    "far memo as text": (b"Np99999999999\n", "damaged: opcode PUT"),
    "array called with a huge shape": (NDARRAY + BIG + b"\x85R", "a numpy array made of"),
    "array reconstructed with a huge shape": (
        RECONSTRUCT + NDARRAY + BIG + b"\x85\x8c\x01b\x87R",
        "a numpy array made",
    ),
    "array of a huge shape": (
        RECONSTRUCT + NDARRAY + b"K\x00\x85\x8c\x01b\x87R(K\x01" + BIG + BIG + b"\x86" + F4 + b"\x89C\x04abcdtb",
        r"of shape \(2147483647, 2147483647\) is \d+ bytes, but 4 are stored",
    ),
    "array of a negative shape": (
        RECONSTRUCT + NDARRAY + b"K\x00\x85\x8c\x01b\x87R(K\x01J\xff\xff\xff\xff\x85" + F4 + b"\x89C\x04abcdtb",
        r"a numpy array of shape \(-1,\)",
    ),
    "array of another class": (RECONSTRUCT + DTYPE + b"K\x00\x85\x8c\x01b\x87R", "a numpy array made of"),
    "dtype with a field": (DTYPE + b"\x8c\x05f4,f4\x89\x88\x87R", "more than plain data"),
    "dtype with a subarray": (
        F4 + b"(K\x03\x8c\x01<" + F4 + b"NNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        "a numpy dtype of state",
    ),
    "dtype of a class": (DTYPE + DTYPE + b"\x89\x88\x87R", "a numpy dtype made of"),
    "unknown dtype": (DTYPE + b"\x8c\x02zz\x89\x88\x87R", "numpy dtype 'zz'"),
    "scalar object": (name("numpy.core.multiarray", "scalar") + DTYPE + b"\x8c\x01O\x89\x88\x87RN\x86R", "dtype 'O'"),
    "huge zeros": (name("builtins", "bytes") + BIG + b"\x85R", "bytes made of"),
    "huge byte array made": (name("builtins", "bytearray") + BIG + b"\x85R", "more than plain data"),
    "another codec": (name("_codecs", "encode") + b"\x8c\x01a\x8c\x03rot\x86R", "_codecs.encode"),
    "state for a function": (name("_codecs", "encode") + b"}\x8c\x01a\x8c\x01bsb", "_codecs.encode is given a state"),
    "a function as value": (name("_codecs", "encode"), "holds a _codecs.encode"),
    "a dtype as value": (F4, "holds a _Dtype"),
    "an array as key": (
        b"}" + RECONSTRUCT + NDARRAY + b"K\x00\x85\x8c\x01b\x87RNs",
        "a dict's key is an array",
    ),
    "a set of nothing iterable": (name("builtins", "set") + NDARRAY + b"\x85R", "a set made of"),
    "dotted name": (b"\x8c\x08builtins\x8c\x0cset.__init__\x93", r"names builtins.set.__init__"),
    "deep": (b"]" * 5000 + b"a" * 4999, "containers within containers, more than 100 deep"),
    "nothing on the stack": (b"0", "no pickle, truncated or damaged"),
    "unhashable key": (b"}]Ns", "no pickle, truncated or damaged"),
}


@pytest.mark.parametrize("kind", CRAFTED)
def test_crafted_pickles_are_refused(kind):
    contents, message = CRAFTED[kind]
    with pytest.raises(plain_pickle.PlainPickleError, match=message):
        plain_pickle.loads(program(contents))


def test_what_grows_when_written_out_is_read_in_no_time():
    """A billion laughs: 60 lists, each twice in the next."""
    loaded = plain_pickle.loads(
        program(b"]" + b"".join(b"\x94](h" + bytes([n]) + b"h" + bytes([n]) + b"e" for n in range(60)))
    )
    assert len(loaded) == 2 and loaded[0] is loaded[1]


def is_refused(contents: bytes) -> None:
    with pytest.raises(plain_pickle.PlainPickleError):
        plain_pickle.loads(contents)


def test_stand_ins_do_not_remember_what_one_file_did():
    for contents, _ in CRAFTED.values():
        is_refused(program(contents))
    assert same(plain_pickle.loads(pickle.dumps(ARRAYS[0])), ARRAYS[0])


@pytest.mark.parametrize(
    "contents", [b"", b"no pickle", b"\x80", b"\x80\x09N.", b"PK\x03\x04", b"\x93NUMPY\x01\x00", bytes(99)]
)
def test_files_that_are_none(tmp_path, contents):
    path = tmp_path / "a.pkl"
    path.write_bytes(contents)
    with pytest.raises(plain_pickle.PlainPickleError, match=r"an empty file|no pickle, (or )?truncated"):
        plain_pickle.load(path)


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(plain_pickle.PlainPickleError, match="cannot be read"):
            plain_pickle.load(path)


def test_damaged_copies_are_refused_or_read_plain():
    """With any byte wrong, only our error is raised, no code runs and no more memory than the file's is used."""
    whole = pickle.dumps({"split": {"a": ["x", "y"]}, "annotations": [{"keypoint": array} for array in ARRAYS]}, 4)
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(1500):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=int(rng.integers(1, 5))):
            damaged[place] = int(rng.integers(256))
        if number % 3 == 0:
            damaged = damaged[: int(rng.integers(len(whole)))]
        try:
            plain_pickle.loads(bytes(damaged))
        except plain_pickle.PlainPickleError as error:
            assert str(error)
            refused += 1
    assert 700 < refused < 1500


def test_every_opcode_is_known():
    """A Python that adds opcodes must be looked at: they are let through unless they are in the list."""
    assert len(pickletools.opcodes) == 68, "new opcodes; decide about each"
    assert pickle.HIGHEST_PROTOCOL == 5
    assert {opcode.name for opcode in pickletools.opcodes} > plain_pickle._REFUSED_OPCODES


def test_crafted_memory_bombs_take_no_memory():
    """Runs in a process of its own, because the peak of its memory is measured."""
    code = (
        "import resource\n"
        "from mmcl_jax.runtime import plain_pickle\n"
        "from tests.runtime import test_plain_pickle as t\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for contents, _ in t.CRAFTED.values():\n"
        "    t.is_refused(t.program(contents))\n"
        "grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024\n"
        "assert grown < 50, f'{grown} MB'\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=pathlib.Path(__file__).parents[2], check=True)


@pytest.mark.parametrize("protocol", range(6))
def test_a_key_of_nested_pairs_takes_no_time(protocol):
    """2 ** 40 items, if each is counted as often as it occurs."""
    nested = (1,)
    for _ in range(40):
        nested = (nested, nested)
    nested_once = (1,)
    for _ in range(20):
        nested_once = (nested_once,)
    for contents in ([nested], {0: [nested]}):
        with pytest.raises(plain_pickle.PlainPickleError, match="contains others many times over"):
            plain_pickle.loads(pickle.dumps(contents, protocol))
    assert plain_pickle.loads(pickle.dumps({nested_once: 1}, protocol)) == {nested_once: 1}


@pytest.mark.parametrize("protocol", range(6))
def test_pairs_of_all_kinds_are_followed(protocol):
    shared = ("a", 2, (3.0, None))
    value = {"x": [shared] * 1000, "y": {shared: {shared}, (): frozenset([shared])}, "z": (shared,) * 50}
    assert plain_pickle.loads(pickle.dumps(value, protocol)) == value
