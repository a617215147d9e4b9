"""Tar archives with other bytes within their compression, or with other members."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable

from tests.fuzz.mutations.kinds import Mutation, into, pick

MUTATIONS: dict[str, Mutation] = {}
_mutation = into(MUTATIONS)


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
    at = pick(rng, blocks) + int(rng.integers(160)) if rng.random() < 0.5 else int(rng.integers(len(data)))
    change = pick(rng, (b"\xff", b"\0" * 8, b"\0" * 512, b"7" * 11, b"x", rng.bytes(4)))
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
        member.name = pick(
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
        member.type = pick(rng, (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE))
        member.linkname = pick(rng, (member.name, "/etc/passwd", "../x", "nowhere"))
        body, member.size = b"", 0
    elif kind == 2:
        member.mtime = pick(rng, (-1, 2**33, 2**63, 1e20))
    elif kind == 3:
        added = [(member, body)]
    elif kind == 4:
        member.pax_headers = pick(
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
        member.mode = pick(rng, (0, 0o7777))
    elif kind == 7:
        added = [(tarfile.TarInfo("extra.json"), b"")]
    else:
        members[place - 1], members[place] = members[place], members[place - 1]
        member, body = members[place]
    members[place] = (member, body)
    stream = io.BytesIO()
    form = int(pick(rng, (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)))
    try:
        with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
            for one, inner in (*members, *added):
                archive.addfile(one, io.BytesIO(inner))
    except (ValueError, OSError, OverflowError, TypeError, UnicodeError):
        return contents
    return compress(stream.getvalue())
