"""ZIP archives: unpacked as they are, and no member is lost without a word."""

import io
import os
import stat
import struct
import warnings
import zipfile

import numpy as np
import pytest

from data_prep.formats import sources
from mmcl_jax.runtime.errors import PreparationError

FILES = {f"clips/clip{number:02d}.json": f'{{"number": {number}}}'.encode() for number in range(6)}


def zip_bytes(files=FILES, compression=zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, contents in files.items() if isinstance(files, dict) else files:
            archive.writestr(
                name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name), contents, compression
            )
    return stream.getvalue()


def unpack(folder, contents: bytes) -> tuple[dict[str, bytes], dict[str, str]]:
    """The files that are read of an archive, and what is set aside."""
    path = folder / "clips.zip"
    path.write_bytes(contents)
    with sources.open_source(path, ".json", folder / "scratch") as (files, set_aside):
        return {name: file.read_bytes() for name, file in files.items()}, {one.name: one.reason for one in set_aside}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_member_of_a_sound_archive(tmp_path, compression):
    files, set_aside = unpack(tmp_path, zip_bytes({**FILES, "readme.txt": b"x"}, compression))
    assert files == {name[6:-5]: contents for name, contents in FILES.items()}
    assert not set_aside
    assert [path.name for path in tmp_path.iterdir()] == ["clips.zip"]


def test_any_changed_bit_is_noticed_or_changes_nothing(tmp_path):
    sound = zip_bytes()
    expected = unpack(tmp_path, sound)
    rng = np.random.default_rng(0)
    noticed = 0
    for place in rng.choice(len(sound), size=100, replace=False).tolist():
        spoiled = bytearray(sound)
        spoiled[place] ^= 1 << int(rng.integers(8))
        try:
            files, set_aside = unpack(tmp_path, bytes(spoiled))
        except PreparationError as error:
            assert "clips.zip" in str(error)
            noticed += 1
        else:
            assert set_aside or (files, set_aside) == expected, place
    assert noticed > 30


def test_members_that_the_directory_lacks_are_missed(tmp_path):
    sound = zip_bytes()
    second = sound.rindex(b"PK\x01\x02")
    size, offset = struct.unpack_from("<LL", sound, sound.rindex(b"PK\x05\x06") + 12)
    assert offset < second < offset + size
    end = bytearray(sound[sound.rindex(b"PK\x05\x06") :])
    end[12:16] = struct.pack("<L", second - offset)
    with pytest.raises(PreparationError, match=r"clips.zip: truncated, corrupt \(5 members in its directory, of 6\)"):
        unpack(tmp_path, sound[:second] + bytes(end))


def test_members_that_no_file_can_be_are_set_aside(tmp_path):
    link = zipfile.ZipInfo("link.json")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    members = [
        *FILES.items(),
        ("../outside.json", b"{}"),
        ("/tmp/outside.json", b"{}"),
        (link, b"/etc/passwd"),
        ("clips/clip00.json", b"{}"),
        ("other/clip01.json", b"{}"),
        (f"{'x' * 300}.json", b"{}"),
    ]
    files, set_aside = unpack(tmp_path, zip_bytes(members))
    assert len(files) == len(FILES)
    assert {name.removeprefix("clips.zip: ")[:20]: reason.split(":")[0][:20] for name, reason in set_aside.items()} == {
        "../outside.json": "leads outside the ar",
        "/tmp/outside.json": "leads outside the ar",
        "link.json": "a link, not a file",
        "clips/clip00.json": "duplicate",
        "other/clip01.json": "duplicate",
        "x" * 20: "cannot be unpacked (",
    }
    assert not (tmp_path.parent / "outside.json").exists()


def test_an_encrypted_member_is_set_aside(tmp_path):
    contents = bytearray(zip_bytes({"a.json": b"{}", "b.json": b"{}"}))
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        contents[contents.index(magic) + at] |= 1
    files, set_aside = unpack(tmp_path, bytes(contents))
    assert list(files) == ["b"]
    assert "encrypted" in set_aside["clips.zip: a.json"]


def test_an_archive_of_more_than_the_disk_has_room_for_is_refused(tmp_path):
    room = 2 * os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    contents = bytearray(zip_bytes({f"{number}.json": b"{}" for number in range(1 + room // sources._LARGEST_FILE)}))
    place = contents.find(b"PK\x01\x02")
    while place >= 0:
        contents[place + 24 : place + 28] = struct.pack("<L", sources._LARGEST_FILE)
        place = contents.find(b"PK\x01\x02", place + 4)
    with pytest.raises(PreparationError, match="bytes; the disk has"):
        unpack(tmp_path, bytes(contents))


def test_links_to_nothing_and_folders_in_a_folder_are_set_aside(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").symlink_to("nowhere")
    (tmp_path / "c.json").mkdir()
    os.mkfifo(tmp_path / "d.json")
    with sources.open_source(tmp_path, ".json", tmp_path / "scratch") as (files, set_aside):
        assert list(files) == ["a"]
    assert [one.name for one in set_aside] == ["b.json", "c.json", "d.json"]
