"""The npm packages of the page: fetched once by npm, pinned by a lock file with digests, kept in a cache folder."""

import hashlib
import pathlib
import re
import shutil
import subprocess
import tempfile

from mmcl_jax.runtime.errors import MMCLError
from mmcl_jax.runtime.files import user_cache

_PINNED = pathlib.Path(__file__).with_name("npm")
_FILES = ("package.json", "package-lock.json")
_OPTIONS = ["--ignore-scripts", "--no-audit", "--no-fund"]
_SOON = ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]  # milliseconds; npm waits a minute otherwise


class PackagesError(MMCLError, OSError):
    """The packages cannot be fetched. Says what to do."""


def fetch_packages() -> pathlib.Path:
    """The folder `node_modules` with the pinned packages; npm fetches them unless they are in the cache.

    npm compares each package with its SHA-512 in the lock file and runs none of their scripts.

    Raises: PackagesError.
    """
    digest = hashlib.sha256((_PINNED / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = user_cache("web") / digest
    if (folder / "node_modules").is_dir():
        return folder / "node_modules"
    npm = shutil.which("npm")
    if npm is None:
        raise PackagesError("a page is made of npm packages, and npm is missing: install Node.js, or export elsewhere")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching_") as scratch:
        partial = pathlib.Path(scratch) / "packages"
        partial.mkdir()
        for name in _FILES:
            shutil.copyfile(_PINNED / name, partial / name)
        ended = subprocess.run([npm, "ci", *_OPTIONS, *_SOON], cwd=partial, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise PackagesError(
                f"npm could not fetch the packages of the page: {_reason(ended.stderr)}. Without a network, run the "
                f"same export where there is one, and copy {folder} from there"
            )
        try:
            partial.replace(folder)
        except OSError:  # another process was faster
            if not (folder / "node_modules").is_dir():
                raise
    return folder / "node_modules"


def _reason(said: str) -> str:
    """The line of npm's message that says most: not its heading, nor where the log is."""
    lines = [re.sub(r"^npm (error|ERR!)\s*", "", line).strip() for line in said.splitlines()]
    heading = ("code ", "syscall ", "errno ", "A complete log")
    telling = [line for line in lines if line and not line.startswith(heading)]
    return telling[0] if telling else "it gave no reason"
