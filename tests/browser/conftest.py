"""Pages in a real Chromium without a window, at the width of a desktop and of a phone.

A page that writes an error to its console, raises one or asks a network for anything fails the test that opened it.
Nothing here reads a clock: a test looks again, frame by frame, until the expected change has come.
"""

import pathlib
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.browser.window import Window

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZES = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}


def pytest_collection_modifyitems(items):
    """Marks the tests of this folder, and skips them where a browser is missing."""
    missing = None
    if CHROMIUM is None:
        missing = "no Chromium: install it with 'apt-get install chromium', or any package of it that is on the PATH"
    for item in items:
        if pathlib.Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def playwright():
    """What starts browsers: one for all tests of a process, which can hold no second one."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `tests`")
    with sync_api.sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright):
    """Chromium, started once."""
    # Containers often run as root, which Chromium's sandbox refuses, and have a small /dev/shm.
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=0)
    yield started
    started.close()


@pytest.fixture
def open_window(browser) -> Iterator[Callable[..., Window]]:
    """`open_window(path, size, **options)`: the page in `path`, watched until the end of the test."""
    windows = []

    def start(path: pathlib.Path, size: str, **options) -> Window:
        context = browser.new_context(**{**SIZES[size], **options})
        context.set_default_timeout(0)
        windows.append(Window(context, path))
        return windows[-1]

    yield start
    try:
        for window in windows:
            window.check()
    finally:
        for window in windows:
            window.context.close()


@pytest.fixture(params=SIZES)
def size(request) -> str:
    """Both sizes."""
    return request.param
