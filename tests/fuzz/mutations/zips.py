"""ZIP archives, those of arrays and of tensors included, with other headers or members."""

import io
import warnings
import zipfile

from tests.fuzz.mutations.kinds import Mutation, into, pick

MUTATIONS: dict[str, Mutation] = {}
_mutation = into(MUTATIONS)


def members_of(contents: bytes) -> dict[str, bytes] | None:
    """The contents of an archive's members by name; None if it cannot be read."""
    try:
        with zipfile.ZipFile(io.BytesIO(contents)) as archive:
            return {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except Exception:  # a mutated one
        return None


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these members, all of the same date."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member, compression)
    return stream.getvalue()


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
    start, length = pick(rng, starts)
    at = start + int(rng.integers(4, length - 1))
    value = pick(rng, (b"\x00\x00", b"\xff\xff", b"\x01\x00", b"\x08\x00", b"\x63\x00", b"\xff\x7f", b"\x09\x00"))
    return contents[:at] + value + contents[at + 2 :]


for _format in ("npz", "zip", "torch"):
    MUTATIONS[f"{_format}_field"] = Mutation(_zip_field, _format)


@_mutation("zip", removes=True)
def zip_members(rng, contents):
    members = members_of(contents)
    if not members:
        return contents
    stream = io.BytesIO()
    compression = int(pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    changed = pick(rng, list(members))
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", compression) as archive:
        warnings.simplefilter("ignore")
        for name, member in members.items():
            if name != changed:
                archive.writestr(zipfile.ZipInfo(name), member, compression)
                continue
            kind = int(rng.integers(6))
            if kind == 0:
                renamed = pick(rng, (f"../../{name}", f"/tmp/{name}", f"{name}/", f"a/{'x' * 300}{name}", f"é{name}"))
                archive.writestr(zipfile.ZipInfo(renamed), member, compression)
            elif kind == 1:
                archive.writestr(zipfile.ZipInfo(name), member, compression)
                archive.writestr(zipfile.ZipInfo(f"other/{name}"), member, compression)
                archive.writestr(zipfile.ZipInfo(name), member[:20], compression)
            elif kind == 2:
                link = zipfile.ZipInfo(name)
                link.create_system, link.external_attr = 3, 0o120777 << 16
                archive.writestr(link, pick(rng, ("/etc/passwd", name, "../x")))
            elif kind == 3:
                archive.writestr(zipfile.ZipInfo(name), bytes(50_000_000), zipfile.ZIP_DEFLATED)
            elif kind == 4:
                archive.writestr(zipfile.ZipInfo(name), member[: len(member) // 2], compression)
    return stream.getvalue()
