"""The package as a user installs it: a wheel, in an environment of its own, outside the repository.

`make test-install` runs this file, with nothing but Python: an environment that starts empty, every console script's
--help, and docs/examples/first_run.py. `make test` runs the same with the dependencies of its own environment.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ("mmcl-train", "mmcl-evaluate", "mmcl-predict", "mmcl-export", "mmcl-torch-weights", "mmcl-prepare")
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")


def build_wheel(folder: pathlib.Path) -> pathlib.Path:
    """Builds the wheel in `folder`, from a copy of the repository: an old `build` of setuptools would be packed too."""
    copy = folder / "source"
    copy.mkdir(parents=True)
    for name in ("mmcl_jax", "data_prep", "configs", "tests", "experiments"):
        shutil.copytree(ROOT / name, copy / name, ignore=_LEFT_OUT)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, copy], folder)
    return next(folder.glob("mmcl_jax-*.whl"))


def files_in(wheel: pathlib.Path) -> list[str]:
    """Paths of the wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


class Environment:
    """A virtual environment in which a wheel is installed."""

    def __init__(self, folder: pathlib.Path, wheel: pathlib.Path, options: Sequence[str] = ()):
        """Makes the environment in `folder`. `options` are pip's."""
        run([sys.executable, "-m", "venv", folder], folder.parent)
        self.programs = folder / "bin"
        pip = [self.programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, *options, wheel], folder.parent)

    @classmethod
    def beside(cls, folder: pathlib.Path, wheel: pathlib.Path) -> "Environment":
        """One that finds the dependencies in the environment of this process, which saves minutes."""
        environment = cls(folder, wheel, ["--no-deps"])
        packages = environment.python(
            "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder.parent
        ).strip()
        # Lines of a .pth file come after the environment's own packages, and .pth files behind them are not read: an
        # editable installation of this repository stays unseen.
        own = [place for place in sys.path if place.endswith("site-packages")]
        (pathlib.Path(packages) / "dependencies.pth").write_text("\n".join(own) + "\n")
        return environment

    def python(self, *arguments: str, cwd: pathlib.Path) -> str:
        """Runs Python and returns what it printed."""
        return run([self.programs / "python", *arguments], cwd)

    def script(self, name: str, *arguments: str, cwd: pathlib.Path) -> str:
        """Runs a console script and returns what it printed."""
        return run([self.programs / name, *arguments], cwd)


def run(command: Sequence, cwd: pathlib.Path) -> str:
    """Runs a command, away from the repository; returns its output, which an error shows."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def main() -> None:
    """Installs into an empty environment and uses it. Arguments are pip's: `-c requirements.txt`."""
    options = [str(pathlib.Path(part).resolve()) if pathlib.Path(part).is_file() else part for part in sys.argv[1:]]
    with tempfile.TemporaryDirectory(prefix="mmcl_install_") as name:
        folder = pathlib.Path(name)
        wheel = build_wheel(folder / "wheel")
        print(f"{wheel.name}: {wheel.stat().st_size:,} bytes, {len(files_in(wheel))} files")
        began = time.monotonic()
        environment = Environment(folder / "environment", wheel, options)
        print(f"Python {sys.version.split()[0]}: installed in {time.monotonic() - began:.0f} s")
        listed = environment.python("-m", "pip", "freeze", "--disable-pip-version-check", cwd=folder).split()
        print(*(package for package in listed if package.startswith(("jax==", "flax==", "numpy=="))))
        for script in SCRIPTS:
            environment.script(script, "--help", cwd=folder)
        print(f"--help of {', '.join(SCRIPTS)}: works")
        began = time.monotonic()
        output = environment.python(str(ROOT / "docs" / "examples" / "first_run.py"), cwd=folder)
        print(f"first_run.py: {output.splitlines()[-1]}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
