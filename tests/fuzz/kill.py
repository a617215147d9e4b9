"""Kills commands at random moments, starts them again, and compares the result with an uninterrupted run, bit by bit.

    make kill [SEED=1] [KILLS=20]

A moment is drawn between the first file that the command creates and its end. After each kill the destination must be
as before or complete; the same command, started again, must leave what the uninterrupted one left, and nothing else.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np

from tests.fuzz import readers
from tests.helpers import runs

_ATTEMPTS = 10  # to hit a command before it ends


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that writes `out`, a name beneath the folder where it works.

    Attributes:
      arguments: after `python -m`.
      prepare: puts what the command reads or changes into that folder; called before each uninterrupted or killed run.
      contents: of what it wrote.
      is_sound: whether `out` is as before or complete, after a kill.
    """

    arguments: tuple[str, ...]
    prepare: Callable[[pathlib.Path], None]
    contents: Callable[[pathlib.Path], dict]
    is_sound: Callable[[pathlib.Path], bool]


def _bytes(out: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def _records_or_nothing(out: pathlib.Path) -> bool:
    from mmcl_jax.data.records import Records

    if not out.exists():
        return True
    opened = Records(out)
    return all(len(opened.skeleton(row)) for row in range(len(opened)))


def _run_or_nothing(out: pathlib.Path) -> bool:
    return all((out / "checkpoints" / str(step) / "digests").exists() for step in runs.saved_steps(out))


def _run_contents(out: pathlib.Path) -> dict:
    last = runs.saved_steps(out)[-1]
    arrays = {**runs.read_checkpoint(out, last), **runs.read_scores(out)}
    stored = {name: (str(value.dtype), value.shape, value.tobytes()) for name, value in arrays.items()}
    return {**stored, "rows": runs.read_rows(out), "steps": runs.saved_steps(out)}


def _imported_contents(out: pathlib.Path) -> dict:
    from mmcl_jax import checkpoints

    leaves = jax.tree_util.tree_leaves_with_path(checkpoints.read_variables(out)[1])
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
    return {**arrays, "imported": json.loads((out / "imported.json").read_text())}


def _nothing(_folder: pathlib.Path) -> None:
    return


def commands(source: pathlib.Path) -> dict[str, Command]:
    """Every command, with its input in `source`, which is made here."""
    made: dict[str, Command] = {}

    def add(name: str, module: str, *arguments: str) -> None:
        made[name] = Command((module, *arguments, "--out=out"), _nothing, _bytes, _records_or_nothing)

    def make(name: str) -> pathlib.Path:
        folder = source / name
        folder.mkdir(parents=True)
        readers.READERS[name].make(folder)
        return folder

    raw, videos = source / "ntu", source / "videos"
    _make_many_ntu(raw, videos)
    add("ntu", "data_prep.ntu", f"--skeletons={raw}", f"--videos={videos}", "--images=images")
    add("ntu_zip", "data_prep.ntu", f"--skeletons={make('ntu_zip') / 'nturgbd_skeletons.zip'}")
    add("nw_ucla", "data_prep.nw_ucla", f"--source={make('nw_ucla_tar_xz') / 'nw_ucla.tar.xz'}")
    add("utd_mhad", "data_prep.utd_mhad", f"--source={make('utd_mhad')}")
    add("sysu", "data_prep.sysu", f"--source={make('sysu')}")
    add("pyskl", "data_prep.pyskl", f"--source={make('pyskl_3d') / 'ntu60_3danno.pkl'}")
    folder = make("ctrgcn")
    add(
        "ctrgcn_arrays",
        "data_prep.ctrgcn_arrays",
        f"--source={folder / 'mine.npz'}",
        f"--class_names={folder / 'classes.txt'}",
    )
    add("synthetic", "data_prep.synthetic", "--subjects=3")
    _add_text(made, source, make("text_features"))
    weights = make("weights_npz") / "weights.npz"
    importing = ("mmcl_jax.torch_weights", "import", str(weights), "out")
    made["torch_weights"] = Command(importing, _nothing, _imported_contents, lambda out: True)
    records = source / "training_records"
    runs.write_tiny_records(records)
    python, _, _, *arguments = runs.command(records, pathlib.Path("out"), checkpoint_every_steps=5)
    assert python == sys.executable
    config = [f"--config={runs.ROOT / 'configs' / 'demo.py'}" if a.startswith("--config=") else a for a in arguments]
    made["training"] = Command(("tests.helpers.shallow", *config), _nothing, _run_contents, _run_or_nothing)
    return made


def _make_many_ntu(raw: pathlib.Path, videos: pathlib.Path) -> None:
    from tests.helpers import ntu_files

    raw.mkdir(parents=True)
    videos.mkdir()
    for number in range(1, 9):
        name = f"S001C001P{number:03d}R001A{number:03d}"
        (raw / f"{name}.skeleton").write_text(ntu_files.one_person(14, seed=number))
        ntu_files.write_video(videos / f"{name}_rgb.avi", 14, size=(270, 480))


def _add_text(made: dict[str, Command], source: pathlib.Path, folder: pathlib.Path) -> None:
    """The command that joins text features to records which have others of the same set."""
    from data_prep.text import text_sets

    joined = source / "joined"
    shutil.copytree(folder / "records", joined)
    text_sets.join(joined, folder / "text")

    def prepare(work: pathlib.Path) -> None:
        shutil.rmtree(work / "out", ignore_errors=True)
        shutil.copytree(joined, work / "out")

    join = f"from data_prep.text import text_sets; text_sets.join('out', {str(folder / 'text')!r})"
    made["text_features"] = Command(("-c", join), prepare, _bytes, _records_or_nothing)


class Scene:
    """A folder in which a command works, and what is seen of it from outside."""

    def __init__(self, command: Command, folder: pathlib.Path, cache: pathlib.Path):
        self._command, self.folder = command, folder
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(runs.ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": runs.UNOPTIMISED,
            "JAX_COMPILATION_CACHE_DIR": str(cache),
        }
        folder.mkdir(parents=True, exist_ok=True)

    def prepare(self) -> None:
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        self._command.prepare(self.folder)

    def start(self) -> subprocess.Popen:
        arguments = self._command.arguments
        program = [sys.executable, *(arguments if arguments[0] == "-c" else ("-m", *arguments))]
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            return subprocess.Popen(
                program,
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for_work(self, process: subprocess.Popen, before: list[str]) -> bool:
        """Waits until there is something new; returns whether the process still runs."""
        while process.poll() is None:
            if _names(self.folder) != before:
                return True
            time.sleep(0.002)
        return False

    def finish(self) -> float:
        """Runs the command to its end; returns the seconds of its work."""
        before = _names(self.folder)
        process = self.start()
        self.wait_for_work(process, before)
        began = time.monotonic()
        status = process.wait()
        if status:
            log = (self.folder.parent / f"{self.folder.name}.log").read_text(errors="replace")
            raise RuntimeError(f"{' '.join(self._command.arguments)} ended with status {status}:\n{log[-3000:]}")
        return time.monotonic() - began

    def kill(self, share: float, seconds: float) -> bool:
        """Kills the command after a share of its work; returns whether it was alive."""
        before = _names(self.folder)
        process = self.start()
        if self.wait_for_work(process, before):
            time.sleep(share * seconds)
        alive = process.poll() is None
        if alive:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return alive


def _names(folder: pathlib.Path) -> list[str]:
    """What is in a folder, and in `out` beneath it."""
    return sorted(path.name for top in (folder, folder / "out") if top.is_dir() for path in top.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.kill", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--commands", default="", help="separated by commas (default: all)")
    options = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory(prefix="mmcl_kill_") as folder:
        sys.exit(_campaign(options, pathlib.Path(folder)))


def _campaign(options: argparse.Namespace, folder: pathlib.Path) -> int:
    known = commands(folder / "source")
    names = options.commands.split(",") if options.commands else list(known)
    scenes, expected, seconds, left = {}, {}, {}, {}
    for name in names:
        scene = scenes[name] = Scene(known[name], folder / name, folder / "compiled")
        for _ in range(2 if name == "training" else 1):  # the first compiles
            scene.prepare()
            seconds[name] = scene.finish()
        expected[name] = known[name].contents(scene.folder / "out")
        left[name] = sorted(path.name for path in scene.folder.iterdir())
        print(f"{name}: {seconds[name]:.1f} s of work, uninterrupted", flush=True)
    rng, good = np.random.default_rng(options.seed), 0
    for number in range(options.kills):
        name = names[number % len(names)] if number % 4 or "training" not in names else "training"
        fault = _kill_once(known[name], scenes[name], expected[name], left[name], seconds[name], rng)
        good += not fault
        print(f"{number + 1} {name}: {fault or 'the same'}", flush=True)
    print(f"{good} of {options.kills}")
    return 0 if good == options.kills else 1


def _kill_once(
    command: Command, scene: Scene, expected: dict, left: list[str], seconds: float, rng: np.random.Generator
) -> str:
    """Kills and starts again; returns what is wrong afterwards."""
    for attempt in range(_ATTEMPTS):
        scene.prepare()
        share = float(rng.random()) * 0.7**attempt
        if scene.kill(share, seconds):
            break
    else:
        return f"it always ended before it was killed, in {_ATTEMPTS} attempts"
    out = scene.folder / "out"
    try:
        if not command.is_sound(out):
            return f"killed after {share:.0%} of its work: {out.name} is neither as before nor complete"
    except Exception as error:
        return f"killed after {share:.0%} of its work: {error!r}"
    if out.exists() and command.contents is _bytes and _bytes(out) == expected and command.prepare is _nothing:
        leftovers = ""  # it had ended but for its last lines
    else:
        scene.finish()
        leftovers = ", ".join(sorted({path.name for path in scene.folder.iterdir()} - set(left)))
    found = command.contents(out)
    differing = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if differing:
        return f"killed after {share:.0%} of its work: {differing[:5]} differ"
    return f"left behind: {leftovers}" if leftovers else ""


if __name__ == "__main__":
    main()
