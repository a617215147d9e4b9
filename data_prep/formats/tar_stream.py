"""Reads a tar archive once from its first byte to its last, so that damage anywhere is found.

`tarfile` takes a damaged header behind the first member for the end of the archive, and stops before it reaches the
checksum of the compression. Python's readers of xz and bzip2 ignore a damaged stream behind a sound one. In both cases
the rest of the members is lost without an error.
"""

import bz2
import lzma
import tarfile
import zlib
from collections.abc import Callable

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 16  # bytes of the archive that are read at a time
_MOST_AT_ONCE = 1 << 20  # bytes that are decompressed at a time, which bounds the memory
_LARGEST_HEADER = 1 << 24  # bytes of a member's extended header, which tarfile reads at once; files come in small parts
_LARGEST_DICTIONARY = 1 << 30  # bytes of memory that an xz archive may ask for
_DAMAGED = (OSError, EOFError, ValueError, MemoryError, lzma.LZMAError, zlib.error)


class _Gzip:
    """zlib's decompressor with the interface of lzma's and bz2's. It compares checksum and length at the end."""

    def __init__(self):
        self._stream = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=_LARGEST_DICTIONARY)


_COMPRESSIONS: dict[bytes, Callable] = {b"\x1f\x8b": _Gzip, b"\xfd7zXZ\0": _xz, b"BZh": bz2.BZ2Decompressor}


class TarStream:
    """The bytes of a tar archive, decompressed. It is a file for `tarfile` that is read forwards only.

    Raises: tarfile.ReadError where the compression is damaged or the archive ends too early.
    """

    def __init__(self, file):
        """`file`: the archive, a binary file at its start, compressed with gzip, xz or bzip2 or not at all."""
        self._file = file
        self._raw = file.read(_CHUNK)  # read from the file, not decompressed yet
        self._factory = next((made for magic, made in _COMPRESSIONS.items() if self._raw.startswith(magic)), None)
        self._decompressor = self._factory and self._factory()
        self._ready = bytearray()  # decompressed, not read yet
        self._last = b""  # what was read last
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        """Skips to `position`. Raises: tarfile.ReadError if it was passed already or is behind the end."""
        if position < self._position:
            raise tarfile.ReadError(f"a member at byte {position} begins before the end of the one in front of it")
        while self._position < position:
            if not self.read(min(position - self._position, _MOST_AT_ONCE)):
                raise tarfile.ReadError(f"unexpected end of data at byte {self._position}")

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end. Raises: tarfile.ReadError."""
        if size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes at byte {self._position}")
        while len(self._ready) < size:
            more = self._more()
            if not more:
                break
            self._ready += more
        self._last = bytes(self._ready[:size])
        del self._ready[:size]
        self._position += len(self._last)
        return self._last

    def check_end(self, offset: int) -> None:
        """Reads what follows the last member, which ended at byte `offset`: nothing but zeros.

        Raises: tarfile.ReadError.
        """
        if self._position == offset:
            self.read(_BLOCK)
        if self._position > offset + _BLOCK or len(self._last) < _BLOCK:
            raise tarfile.ReadError(f"no end mark behind the last member, at byte {offset}")
        while self._last:
            if self._last.count(0) != len(self._last):
                raise tarfile.ReadError(f"data that is no member follows the last one, which ends at byte {offset}")
            self.read(_MOST_AT_ONCE)

    def _more(self) -> bytes:
        """The next bytes; b"" at the end."""
        if self._decompressor is None:
            more, self._raw = self._raw or self._file.read(_CHUNK), b""
            return more
        try:
            return self._decompress()
        except _DAMAGED as error:
            raise tarfile.ReadError(f"the compressed data is damaged: {error}") from error

    def _decompress(self) -> bytes:
        while True:
            if self._decompressor.eof:
                self._raw = self._decompressor.unused_data + self._raw
                while not self._raw.strip(b"\0"):  # zeros may fill up the last block of a tape or disk
                    self._raw = self._file.read(_CHUNK)
                    if not self._raw:
                        return b""
                self._raw = self._raw.lstrip(b"\0")
                self._decompressor = self._factory()
            raw, self._raw = self._raw, b""
            if not raw and self._decompressor.needs_input:
                raw = self._file.read(_CHUNK)
                if not raw:
                    raise EOFError("it ends before its end mark")
            more = self._decompressor.decompress(raw, _MOST_AT_ONCE)
            if more:
                return more
