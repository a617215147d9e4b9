"""Archives that are damaged anywhere are refused; members that no file can hold are set aside by name."""

import bz2
import gzip
import io
import json
import lzma
import pathlib
import tarfile

import numpy as np
import pytest

from data_prep.formats import sources
from mmcl_jax.runtime.errors import PreparationError

COMPRESSIONS = {"": lambda contents: contents, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
CONTENTS = {f"clip{number:02d}.json": json.dumps(list(range(number, number + 300))).encode() for number in range(20)}


def tar_bytes(contents: dict[str, bytes] = CONTENTS, **fields) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def unpack(folder: pathlib.Path, archive: bytes) -> tuple[dict[str, bytes], list]:
    """What `open_source` makes of the bytes of an archive: contents by file name, and what is set aside."""
    path = folder / "clips.tar"
    path.write_bytes(archive)
    with sources.open_source(path, ".json", folder / "scratch") as (files, set_aside):
        return {file.name: file.read_bytes() for file in files.values()}, set_aside


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_member_of_a_sound_archive(tmp_path, compression):
    assert unpack(tmp_path, COMPRESSIONS[compression](tar_bytes())) == (CONTENTS, [])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_archive_in_several_streams_and_filled_up_with_zeros(tmp_path, compression):
    whole = tar_bytes()
    parts = [COMPRESSIONS[compression](part) for part in (whole[:5000], whole[5000:])]
    assert unpack(tmp_path, b"".join(parts) + bytes(10240)) == (CONTENTS, [])


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("byte", [0, 100, 124, 148, 156, 257])  # of a header: name, mode, size, checksum, type, magic
def test_a_damaged_header_behind_the_first_member_is_refused(tmp_path, compression, byte):
    damaged = bytearray(tar_bytes())
    damaged[damaged.index(b"clip07.json") + byte] ^= 0xFF
    with pytest.raises(PreparationError, match=r"clips.tar: truncated, corrupt or not a tar archive .*download"):
        unpack(tmp_path, COMPRESSIONS[compression](bytes(damaged)))
    assert [path.name for path in tmp_path.iterdir()] == ["clips.tar"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_is_cut_off_is_missed(tmp_path, compression):
    """At any place, that between two members and that before the checksum of the compression among them."""
    whole = tar_bytes()
    packed = COMPRESSIONS[compression](whole)
    cuts = [COMPRESSIONS[compression](whole[: whole.index(name.encode())]) for name in ("clip07.json", "clip19.json")]
    cuts += [packed[:length] for length in (len(packed) // 2, len(packed) - 1, len(packed) - 8) if compression]
    for cut in cuts:
        with pytest.raises(PreparationError, match=r"truncated, corrupt"):
            unpack(tmp_path, cut)


@pytest.mark.parametrize("compression", [".gz", ".xz", ".bz2"])
def test_any_changed_bit_of_the_compressed_data_is_noticed(tmp_path, compression):
    packed = COMPRESSIONS[compression](tar_bytes())
    rng = np.random.default_rng(0)
    for place in [*rng.integers(12, len(packed), 40), *range(len(packed) - 8, len(packed))]:
        damaged = bytearray(packed)
        damaged[place] ^= 1 << int(rng.integers(8))
        try:
            assert unpack(tmp_path, bytes(damaged)) == (CONTENTS, []), place  # a bit that says nothing
        except PreparationError as error:
            assert "truncated, corrupt" in str(error)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("behind", [b"more", tar_bytes({"clip20.json": b"[]"})])
def test_data_behind_the_end_is_refused(tmp_path, compression, behind):
    with pytest.raises(PreparationError, match="truncated, corrupt"):
        unpack(tmp_path, COMPRESSIONS[compression](tar_bytes() + behind))


@pytest.mark.parametrize("compression", [".gz", ".xz", ".bz2"])
def test_a_damaged_stream_behind_a_sound_one_is_refused(tmp_path, compression):
    whole = tar_bytes()
    second = bytearray(COMPRESSIONS[compression](whole[8192:]))
    second[1] ^= 0xFF
    with pytest.raises(PreparationError, match="truncated, corrupt"):
        unpack(tmp_path, COMPRESSIONS[compression](whole[:8192]) + bytes(second))


@pytest.mark.parametrize("mtime", [-1, 1e20, 2**63, float("inf"), float("nan")])
def test_a_time_that_no_file_can_have_does_no_harm(tmp_path, mtime):
    archive = tar_bytes(pax_headers={"mtime": str(mtime)})
    assert unpack(tmp_path, archive) == (CONTENTS, [])


ODD_MEMBERS = {  # changes of a member -> why it is set aside
    "long": ({"name": "x" * 300 + ".json"}, "cannot be unpacked"),
    "NUL": ({"pax_headers": {"path": "a\0b.json"}}, "a NUL character in its name"),
    "sparse": (
        {"pax_headers": {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1",
                         "GNU.sparse.size": str(100 << 30)}},
        "a sparse file of 107,374,182,400 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD_MEMBERS)
def test_a_member_that_no_file_can_be_is_set_aside(tmp_path, kind):
    changes, reason = ODD_MEMBERS[kind]
    changes = {"name": "odd.json", **changes}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in (("odd", b"[1]"), *CONTENTS.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for field, value in changes.items() if name == "odd" else ():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(data))
    files, (set_aside,) = unpack(tmp_path, stream.getvalue())
    assert files == CONTENTS
    assert reason in set_aside.reason


def test_a_file_beyond_any_dataset_is_set_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_LARGEST_FILE", 1 << 20)
    bomb = gzip.compress(tar_bytes({"bomb.json": bytes(1 << 22), **CONTENTS}))
    files, (set_aside,) = unpack(tmp_path, bomb)
    assert files == CONTENTS
    assert set_aside.reason == "4,194,304 bytes, more than 1,048,576; not a file of this dataset"


def test_a_header_of_any_declared_size_takes_no_memory(tmp_path):
    member = tarfile.TarInfo("././@PaxHeader")
    member.type, member.size = tarfile.XHDTYPE, 1 << 32
    with pytest.raises(PreparationError, match="a header of 4294967296 bytes"):
        unpack(tmp_path, tar_bytes()[:-10240] + member.tobuf() + bytes(1 << 20))
