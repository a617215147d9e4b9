"""The exported page in a browser with a fake camera: a skeleton, the right action, and what is said to people."""

import contextlib
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mmcl_jax.trained_model import load_model
from mmcl_jax.web.folder import export_web
from mmcl_jax.web.packages import PackagesError, fetch_packages
from mmcl_jax.web.server import address, open_server
from tests.browser.conftest import CHROMIUM, SIZES
from tests.browser.window import Window

WALK = "videos/icesi/walk_to_camera/L04_1.mp4"
# Where there is no GPU, Chromium and LiteRT say so, and WebAssembly computes.
WARNINGS = ("No available adapters", "Failed to create default WebGPU device")

# What a browser, and then the page, write to the console about a file that is missing.
LOST_FILE = ("Failed to load resource: ", "Error: ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """The page of the model that comes with the package."""
    pytest.importorskip("onnx", reason="no onnx; pip install '.[onnx]'")
    try:
        fetch_packages()
    except PackagesError as error:
        pytest.skip(str(error))
    out = tmp_path_factory.mktemp("exported") / "page"
    export_web(load_model("any_camera"), out)
    return out


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    """The address of the page while it is served."""
    with open_server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield address(server)
        server.shutdown()


@pytest.fixture
def serve() -> Iterator[Callable[[pathlib.Path], str]]:
    """`serve(folder)`: the address of a page that is served until the browser is closed."""
    with contextlib.ExitStack() as servers:
        yield lambda folder: servers.enter_context(served(folder))


@pytest.fixture(scope="module")
def page(folder) -> Iterator[str]:
    """The address of the served page."""
    with served(folder) as place:
        yield place


@pytest.fixture(scope="module")
def walk() -> pathlib.Path:
    """A video of somebody who walks towards the camera."""
    folder = os.environ.get("MMCL_TEST_DATA")
    path = pathlib.Path(folder or ".") / WALK
    if folder is None or not path.exists():
        pytest.skip(f"no {WALK} in the folder that MMCL_TEST_DATA names")
    return path


def there_and_back(video: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """The frames of a video, then backwards, as Motion JPEG: a camera repeats it without a jump."""
    av = pytest.importorskip("av", reason="no PyAV; pip install '.[video]'")
    with av.open(str(video)) as container:
        pictures = [frame.to_image() for frame in container.decode(video=0)]
    with out.open("wb") as file:
        for picture in pictures + pictures[::-1]:
            picture.save(file, "JPEG", quality=85)
    return out


@pytest.fixture
def open_camera(playwright, serve) -> Iterator[Callable[..., Window]]:
    """`open_camera(page, size, ...)`: the page in a browser whose cameras show a file or a pattern.

    `prepare` is given the browser's context before it opens the page; `errors` are the beginnings of errors that the
    page may write to its console. Browsers are closed before `serve` ends.
    """
    windows = []

    def start(
        page: str,
        size: str,
        pictures: pathlib.Path | None = None,
        allowed: bool = True,
        prepare: Callable[[Any], None] = lambda context: None,
        errors: tuple[str, ...] = (),
    ) -> Window:
        camera = ["--use-fake-device-for-media-stream=device-count=2"]
        if pictures is not None:
            camera.append(f"--use-file-for-fake-video-capture={pictures}")
        usual = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*usual, *camera], timeout=0)
        context = browser.new_context(**SIZES[size], permissions=["camera"] if allowed else [])
        context.set_default_timeout(0)
        prepare(context)
        windows.append(Window(context, page, WARNINGS, errors))
        return windows[-1]

    yield start
    try:
        for window in windows:
            window.check()
    finally:
        for window in windows:
            window.context.browser.close()


def said(window: Window, place: str) -> str:
    return window.page.locator(f"#{place}").inner_text()


class Held:
    """Answers that a page waits for: `open_camera(..., prepare=Held("model.json"))`."""

    def __init__(self, name: str):
        self.name, self.requests, self.released = name, [], False

    def __call__(self, context) -> None:
        context.route(f"**/{self.name}", self._requested)

    def _requested(self, route) -> None:
        if self.released:
            route.continue_()
        else:
            self.requests.append(route)

    def release(self) -> None:
        """Lets the server answer."""
        assert self.requests
        self.released = True
        for route in self.requests:
            route.continue_()


def test_somebody_walks_before_the_camera_and_in_a_video(open_camera, page, walk, size, tmp_path):
    window = open_camera(page, size, there_and_back(walk, tmp_path / "walk.mjpeg"))
    window.page.get_by_role("button", name="Use the camera").click()
    window.until(lambda: said(window, "action") == "walk", "the action")
    assert window.page.evaluate("document.activeElement.id") == "stop"
    canvas = window.page.locator("#picture")
    assert window.page.locator("#action").get_attribute("aria-live") == "polite"
    window.until(lambda: skeleton(canvas) > 300, "a skeleton")
    assert "frames per second" in said(window, "speed") and "WebAssembly" in said(window, "speed")
    assert window.page.locator("#top li").first.inner_text().startswith("walk")
    assert window.page.locator("#chart path").count() == 5
    window.assert_fits()
    window.assert_moves(canvas)
    window.page.keyboard.press("Enter")  # on the button that has the focus
    window.until(lambda: window.page.get_by_role("button", name="Use the camera").is_visible(), "the end")
    window.assert_still(canvas)
    assert window.page.evaluate("document.activeElement.id") == "camera"
    if size == "phone":
        watch_video(window, walk)


def skeleton(canvas) -> int:
    """How many pixels of a canvas have the color of a skeleton."""
    return canvas.evaluate(
        """(canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let count = 0;
          for (let at = 0; at < data.length; at += 4)
            count += Math.abs(data[at] - 41) + Math.abs(data[at + 1] - 199) + Math.abs(data[at + 2] - 255) < 12;
          return count;
        }"""
    )


def watch_video(window: Window, video: pathlib.Path) -> None:
    window.page.get_by_label("Choose a video").set_input_files(video)
    window.until(lambda: window.page.get_by_role("button", name="Stop").is_visible(), "the beginning of the video")
    window.until(lambda: window.page.get_by_role("button", name="Use the camera").is_visible(), "its end")
    assert "all windows: walk " in said(window, "whole")
    window.assert_fits()


# How many files the page has loaded; 0 while one of them is not kept.
ALL_KEPT = """async () => {
  const names = [document.baseURI, ...performance.getEntriesByType("resource").map((each) => each.name)];
  const kept = await Promise.all(names.map((name) => caches.match(name)));
  return kept.every(Boolean) ? names.length : 0;
}"""


def test_nobody_is_seen_with_or_without_a_network(open_camera, folder):
    with served(folder) as place:
        held = Held("model.json")
        window = open_camera(place, "phone", prepare=held)
        click_too_early(window)
        held.release()
        see_nobody(window)
        window.until(lambda: window.page.evaluate(ALL_KEPT) >= 25, "files that are kept")
        (folder / "other.txt").write_text("of another program")
        window.until(lambda: window.page.evaluate("Boolean(navigator.serviceWorker.controller)"), "the worker")
        assert window.page.evaluate("fetch('other.txt').then((answer) => answer.ok)")
    window.page.reload()
    watch_nobody(window)
    assert window.page.evaluate(
        "Promise.all(['main.js', 'other.txt'].map(async (name) => !!await caches.match(name)))"
    ) == [True, False]


def click_too_early(window: Window) -> None:
    """Starts, stops and starts before the page knows its model."""
    button = window.page.get_by_role("button", name="Use the camera")
    for press_stop in (True, False):
        button.press("Enter")
        window.until(lambda: said(window, "action") == "Loading the networks", "a page that waits")
        if press_stop:
            window.page.get_by_role("button", name="Stop").click()
            window.until(button.is_visible, "the end")
    window.until(lambda: window.page.evaluate("Boolean(navigator.serviceWorker.controller)"), "the worker")


def watch_nobody(window: Window) -> None:
    window.page.get_by_role("button", name="Use the camera").press("Enter")
    see_nobody(window)


def see_nobody(window: Window) -> None:
    window.until(lambda: said(window, "action") == "Nobody is seen", "that nobody is seen")
    assert skeleton(window.page.locator("#picture")) == 0
    assert window.page.locator("#top li").count() == 0
    window.assert_fits()


def test_a_page_that_cannot_be_kept_and_that_fails_once(open_camera, serve, folder, tmp_path):
    network = folder / "vendor" / "mediapipe" / "pose_detection.tflite"
    place = serve(folder)
    window = open_camera(place, "desktop", errors=LOST_FILE)
    window.until(lambda: window.page.evaluate("Boolean(navigator.serviceWorker.controller)"), "the worker")
    quota = {"origin": place.rstrip("/"), "quotaSize": 1}
    window.context.new_cdp_session(window.page).send("Storage.overrideQuotaForOrigin", quota)
    window.page.evaluate("async () => { for (const name of await caches.keys()) await caches.delete(name); }")
    moved = network.rename(tmp_path / network.name)
    window.page.reload()
    camera = window.page.get_by_role("button", name="Use the camera")
    camera.click()
    window.until(lambda: window.page.locator("#problem").is_visible(), "an explanation")
    moved.rename(network)
    assert said(window, "problem").startswith("This does not work here: ")
    count_cameras(window)
    camera.click()
    window.until(lambda: said(window, "speed") != "", "frames")
    window.page.locator("#turn").evaluate("(turn) => [turn.click(), turn.click()]")
    window.until(lambda: window.page.evaluate("streams.length") == 3, "the cameras")
    window.until(lambda: said(window, "speed") != "", "frames")
    assert window.page.evaluate("streams.filter((each) => each.active).length") == 1


def count_cameras(window: Window) -> None:
    """Lets the page remember in `streams` what it opens from now on."""
    window.page.evaluate(
        """() => {
          const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
          self.streams = [];
          devices.getUserMedia = async (wanted) => {
            const stream = await open(wanted);
            streams.push(stream);
            return stream;
          };
        }"""
    )


def test_a_refused_camera_is_explained(open_camera, page):
    held = Held("model.json")
    window = open_camera(page, "phone", allowed=False, prepare=held)
    button = window.page.get_by_role("button", name="Use the camera")
    button.click()
    window.until(lambda: window.page.locator("#problem").is_visible(), "an explanation before the model is known")
    held.release()
    window.until(lambda: window.page.locator("#classes li").count() == 25, "the model's classes")
    assert "The camera was refused. To allow it, open the site settings" in said(window, "problem")
    assert window.page.locator("#problem").get_attribute("role") == "alert"
    assert button.is_visible() and not window.page.locator("#stage").is_visible()
    window.assert_fits()
    without_scripts = window.context.browser.new_context(java_script_enabled=False).new_page()
    without_scripts.goto(page)
    assert without_scripts.get_by_role("button", name="Use the camera").is_disabled()
    assert without_scripts.get_by_label("Choose a video").is_disabled()


def test_a_page_of_which_a_file_is_missing_explains_it(open_camera, serve, folder, tmp_path):
    def lose(context) -> None:
        context.route("**/poses.json", lambda route: route.abort(), times=1)

    def explained(reason: str) -> None:
        window.until(lambda: window.page.locator("#problem").is_visible(), "an explanation")
        assert said(window, "problem").startswith(f"This does not work here: {reason}")

    described = folder / "model.json"
    window = open_camera(serve(folder), "desktop", prepare=lose, errors=LOST_FILE)
    explained("poses.json cannot be read (no answer: ")
    kept = described.rename(tmp_path / described.name)
    window.page.reload()
    explained("model.json cannot be read (HTTP status 404)")
    described.write_text("<!doctype html>")  # what some servers answer instead
    window.page.get_by_role("button", name="Use the camera").click()
    window.until(lambda: "status 404" not in said(window, "problem"), "another try")
    explained("model.json cannot be read (HTTP status 200: ")
    kept.rename(described)
    window.page.get_by_role("button", name="Use the camera").click()
    window.until(lambda: said(window, "speed") != "", "frames")
    assert window.page.locator("#classes li").count() == 25
    assert not window.page.locator("#problem").is_visible()


def test_a_file_that_is_no_video_is_explained(open_camera, page, tmp_path):
    (tmp_path / "notes.mp4").write_text("no video")
    window = open_camera(page, "desktop")
    window.page.get_by_label("Choose a video").set_input_files(tmp_path / "notes.mp4")
    window.until(lambda: window.page.locator("#problem").is_visible(), "an explanation")
    assert said(window, "problem") == "This browser cannot play notes.mp4. Choose an MP4 or WebM file."
    names = window.page.locator("#classes li")
    assert names.count() == 25
    assert names.first.text_content() == "pick up"
