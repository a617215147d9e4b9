"""One process at a time; locks of the dead are taken over, those of other hosts are not."""

import json
import os
import signal
import subprocess
import sys

import pytest

from mmcl_jax.runtime import locks
from mmcl_jax.runtime.locks import LockedError, exclusive
from tests.helpers.runs import ROOT

_HOLD = """
import pathlib, sys, time
from mmcl_jax.runtime.locks import exclusive
with exclusive(pathlib.Path(sys.argv[1]), what="work", remedy="go elsewhere"):
    print("in", flush=True)
    sys.stdin.readline()
"""
# Counts, without atomic operations of its own, how many are inside at once.
_CONTEND = """
import pathlib, sys, time
from mmcl_jax.runtime.locks import LockedError, exclusive
lock, inside = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
sys.stdin.readline()
try:
    with exclusive(lock, what="work", remedy="go elsewhere"):
        inside.mkdir()  # fails if another is inside
        time.sleep(0.5)
        inside.rmdir()
        print("in")
except LockedError:
    print("refused")
"""


def _take(path):
    return exclusive(path, what="training in DIR", remedy="use another --workdir")


def _start(program: str, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.fixture
def holder(tmp_path):
    """A lock file, and another process that holds it."""
    path = tmp_path / "lock"
    process = _start(_HOLD, path)
    assert process.stdout.readline() == "in\n"
    yield path, process
    process.kill()
    process.communicate()


def test_the_file_exists_as_long_as_the_body_runs(tmp_path):
    path = tmp_path / "lock"
    for _ in range(2):
        with _take(path):
            assert list(tmp_path.iterdir()) == [path]
            assert json.loads(path.read_text())["pid"] == os.getpid()
        assert not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), _take(path):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_another_process_is_refused_until_the_first_ends(holder):
    path, process = holder
    before = path.read_text()
    with pytest.raises(LockedError) as caught, _take(path):
        pass
    for part in (str(path), "training in DIR", f"process {process.pid} of ", "use another --workdir"):
        assert part in str(caught.value)
    assert path.read_text() == before
    process.communicate("\n")
    with _take(path):
        pass


def test_the_lock_of_a_killed_process_is_taken_over_and_the_log_says_so(holder, caplog):
    path, process = holder
    process.send_signal(signal.SIGKILL)
    while locks._started(process.pid) is not None:  # dead, and perhaps not yet waited for
        pass
    with caplog.at_level("INFO"), _take(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert f"process {process.pid}, which held this lock, has ended" in caplog.text
    assert not path.exists()


def test_a_number_that_another_process_got_is_not_the_holder(tmp_path, holder):
    path, _ = holder
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "pid": os.getpid()}))  # alive, but started at another time
    with _take(path):
        pass


@pytest.mark.parametrize("change", [{"host": "gpu7"}, {"namespace": "pid:[1]"}])
def test_the_lock_of_another_host_or_container_is_refused_with_the_remedy(tmp_path, holder, change):
    path, _ = holder
    path.write_text(json.dumps({**json.loads(path.read_text()), **change, "pid": 2**22 + 1}))
    with pytest.raises(LockedError, match=r"another host or container.*If it has ended, remove the file"), _take(path):
        pass
    assert path.exists()


@pytest.mark.parametrize(
    "contents", [b"", b"\xff\x00", b"{}", b"[]", b'{"pid": ' + b"[" * 5000, b"null", b"x" * 20_000, b"9" * 6000]
)
def test_a_file_that_names_no_process_is_refused_and_kept(tmp_path, contents):
    path = tmp_path / "lock"
    path.write_bytes(contents)
    with pytest.raises(LockedError, match=r"names no process.*remove it"), _take(path):
        pass
    assert path.read_bytes() == contents
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["folder", "link", "fifo"])
def test_what_is_no_file_is_refused_and_kept(tmp_path, kind):
    path, target = tmp_path / "lock", tmp_path / "target"
    target.write_text("kept")
    {"folder": path.mkdir, "link": lambda: path.symlink_to(target), "fifo": lambda: os.mkfifo(path)}[kind]()
    with pytest.raises(LockedError, match="names no process"), _take(path):
        pass
    assert target.read_text() == "kept"
    assert sorted(tmp_path.iterdir()) == [path, target]


def test_a_stale_lock_is_taken_over_by_one_of_many(tmp_path, holder):
    path, process = holder
    process.kill()
    process.wait()
    processes = [_start(_CONTEND, path, tmp_path / "inside") for _ in range(6)]
    for contender in processes:
        contender.stdin.write("\n")
        contender.stdin.flush()
    printed = [contender.communicate()[0].strip() for contender in processes]
    assert set(printed) <= {"in", "refused"} and "in" in printed, printed
    assert not path.exists()


def test_a_lock_that_is_another_process_by_now_is_not_removed(tmp_path):
    path = tmp_path / "lock"
    with _take(path):
        path.write_text("another's")
    assert path.read_text() == "another's"


def test_without_hard_links_the_file_is_created_exclusively(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "lock"
    with _take(path), pytest.raises(LockedError), _take(path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_made_for_the_lock_is_removed_if_it_stays_empty(tmp_path):
    with _take(tmp_path / "new" / "lock"):
        pass
    assert not (tmp_path / "new").exists()
    with _take(tmp_path / "new" / "lock"):
        (tmp_path / "new" / "file").touch()
    assert (tmp_path / "new" / "file").exists()


def test_a_process_that_ends_at_once_gives_its_locks_up(tmp_path):
    path = tmp_path / "lock"
    with _take(path):
        locks.release_all()
        assert not path.exists()
