"""What came of one input: reads it, and judges what happened against what the sound input gives."""

import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import resource
import shutil
import sys
import tempfile
import traceback
import warnings

from tests.fuzz import readers, trees
from tests.fuzz.mutations.kinds import CANARY
from tests.fuzz.readers import Outcome
from tests.fuzz.trees import Tree

GOOD = ("refused", "set aside", "same", "changed")
BAD = ("traceback", "unnamed", "lost", "memory", "code ran", "left behind", "hang", "died", "harness")
_MEMORY = 700_000_000  # bytes that one input may take
_CODE = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect", "pty.spawn")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of an input: one of GOOD or BAD, and what was said or went wrong."""

    kind: str
    detail: str

    @property
    def is_bad(self) -> bool:
        return self.kind in BAD


class Watch:
    """Sees whether code of an input ran: an import of the canary, a command, a connection."""

    def __init__(self, folder: pathlib.Path):
        self.seen: list[str] = []
        self.active = False
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{CANARY}.py").write_text("import builtins\nbuiltins._fuzz_canary = True\n")
        sys.path.append(str(folder))
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if not self.active:
            return
        if event == "subprocess.Popen" and arguments[0] == "git":  # our own look at the version
            return
        if event in _CODE or (event == "import" and str(arguments[0]).startswith(CANARY)):
            self.seen.append(f"{event} {arguments!r:.200}")


def judge(name: str, tree: Tree, may_lose: bool, watch: Watch, scratch: pathlib.Path) -> Verdict:
    """Reads an input with the reader `name` and judges what came of it.

    Args:
      name: of the reader.
      tree: the input.
      may_lose: whether items may be missing without a word, because what holds them was removed.
      watch: whether code ran.
      scratch: a folder to work in.
    """
    folder = pathlib.Path(tempfile.mkdtemp(dir=scratch))
    watch.seen.clear()
    try:
        trees.write(tree, folder / "in")
        before = _peak_memory(anew=True)
        watch.active = True
        verdict = _read(name, tree, folder, sound(name, scratch).outcome, may_lose)
        watch.active = False
        taken = _peak_memory() - before
        if watch.seen or hasattr(sys.modules["builtins"], "_fuzz_canary"):
            return Verdict("code ran", "; ".join(watch.seen) or "the canary was imported")
        if taken > _MEMORY:
            return Verdict("memory", f"{taken:,} bytes; {verdict.kind}: {verdict.detail}")
        left = sorted(set(os.listdir(folder / "work")) - {"out", "out.html"})
        if left and not verdict.is_bad:
            return Verdict("left behind", f"{left}; {verdict.kind}: {verdict.detail}")
        return verdict
    finally:
        watch.active = False
        shutil.rmtree(folder, ignore_errors=True)


def _peak_memory(anew: bool = False) -> int:
    """The most memory that this process has held, in bytes; `anew`: from now on, where the system can count anew.

    Else, after one input that takes much, others that take as much would not be seen.
    """
    with contextlib.suppress(OSError):
        if anew:
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclasses.dataclass(frozen=True)
class Sound:
    """The sound input of a reader, and what is read of it."""

    tree: Tree
    outcome: Outcome


@functools.cache
def sound(name: str, scratch: pathlib.Path) -> Sound:
    """The sound input of a reader. Raises: what its reader raises, which is a mistake in it or here."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=scratch))
    (folder / "made").mkdir()
    (folder / "work").mkdir()
    with _quiet():
        tree = readers.sound_tree(name, folder / "made")
        trees.write(tree, folder / "in")
        return Sound(tree, readers.READERS[name].read(folder / "in", folder / "work"))


@contextlib.contextmanager
def _quiet():
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", RuntimeWarning)
        yield output


def _read(name: str, tree: Tree, folder: pathlib.Path, sound: Outcome, may_lose: bool) -> Verdict:
    from mmcl_jax.runtime.errors import MMCLError

    (folder / "work").mkdir()
    output = io.StringIO()
    try:
        with _quiet() as output:
            outcome = readers.READERS[name].read(folder / "in", folder / "work")
    except (MMCLError, OSError) as error:
        return _refusal(name, str(error), tree, folder)
    except SystemExit as error:
        message = error.code if isinstance(error.code, str) else output.getvalue()
        return _refusal(name, message, tree, folder)
    except (Exception, RecursionError):
        return Verdict("traceback", traceback.format_exc())
    return _compared(outcome, sound, may_lose)


def _refusal(name: str, message: str, tree: Tree, folder: pathlib.Path) -> Verdict:
    if "Traceback" in message or not message.strip():
        return Verdict("traceback", message or "a refusal without a message")
    names = {part for name in tree for part in name.split("/")} | {str(folder / "in"), str(folder / "work")}
    if not any(part in message for part in names) and name != "config":  # which names keys
        return Verdict("unnamed", message)
    return Verdict("refused", message.replace(str(folder), ""))


def _compared(outcome: Outcome, sound: Outcome, may_lose: bool) -> Verdict:
    said = "; ".join(outcome.set_aside)
    missing = sound.items.keys() - outcome.items.keys()
    lost = sorted(missing) if len(outcome.items) < len(sound.items) else []
    if len(lost) > len([one for one in outcome.set_aside if one not in sound.set_aside]) and not may_lose:
        return Verdict("lost", f"{lost} are neither read nor set aside ({said or 'nothing is'})")
    differing = [key for key, value in outcome.items.items() if sound.items.get(key) != value]
    if differing or outcome.about != sound.about:
        return Verdict("changed", f"{', '.join(differing[:3]) or 'what belongs to no item'}; {said}"[:300])
    if missing or outcome.set_aside != sound.set_aside:
        return Verdict("set aside", said[:300])
    return Verdict("same", "")
