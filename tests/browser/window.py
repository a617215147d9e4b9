"""A page in a browser's window, and what a person does in it and sees of it."""

import pathlib
from collections.abc import Callable

# How long a change is waited for: at 60 frames a second 200 seconds, and longer where a busy machine draws fewer.
MOST_FRAMES = 12_000


class Window:
    """An open page.

    Attributes:
      page: playwright's.
      context: the browser's context of it.
      faults: unexpected events: errors, warnings, requests to a network.
    """

    def __init__(
        self,
        context,
        place: pathlib.Path | str,
        warnings: tuple[str, ...] = (),
        errors: tuple[str, ...] = (),
    ):
        """Opens a page.

        Args:
          context: the browser's.
          place: a file, or the address of a server on this machine, which may be asked for more.
          warnings: beginnings of the console's warnings that are no fault.
          errors: beginnings of its errors that are no fault.
        """
        self.context, self.faults, self._expected = context, [], {"warning": warnings, "error": errors}
        address = place if isinstance(place, str) else place.absolute().as_uri()
        self._own = ("file:", "data:", "blob:", *((address,) if isinstance(place, str) else ()))
        self.page = context.new_page()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self._requested)
        self.page.goto(address)

    def _heard(self, message) -> None:
        if message.type in self._expected and not message.text.startswith(self._expected[message.type]):
            self.faults.append(f"console: {message.text}")

    def _requested(self, request) -> None:
        if not request.url.startswith(self._own):
            self.faults.append(f"request: {request.url}")

    def check(self) -> None:
        """Nothing unexpected has happened so far. Called before the page or its server is closed, which cuts loads."""
        self.frames(1)  # messages that were written before this come
        assert self.faults == []

    def pixels(self, canvas) -> str:
        """What is drawn on a canvas."""
        return canvas.evaluate("(canvas) => canvas.toDataURL()")

    def ink(self, canvas) -> int:
        """How many pixels of a canvas are not empty."""
        return canvas.evaluate(
            """(canvas) => {
              if (!canvas.width || !canvas.height) return 0;
              const copy = new OffscreenCanvas(canvas.width, canvas.height);
              const pen = copy.getContext("2d", { willReadFrequently: true });
              pen.drawImage(canvas, 0, 0);
              const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
              return data.filter((value, place) => place % 4 === 3 && value).length;
            }"""
        )

    def frames(self, number: int) -> None:
        """Lets the browser draw a number of frames."""
        self.page.evaluate(
            "async (number) => { while (number--) await new Promise((drawn) => requestAnimationFrame(drawn)); }", number
        )

    def until(self, come: Callable[[], bool], what: str) -> None:
        """Lets the browser draw until a condition holds."""
        for _ in range(MOST_FRAMES):
            if come():
                return
            self.frames(1)
        raise AssertionError(f"this did not come: {what}")

    def assert_moves(self, canvas) -> None:
        """A canvas changes by itself."""
        before = self.pixels(canvas)
        self.until(lambda: self.pixels(canvas) != before, "a canvas that moves")

    def assert_still(self, canvas, frames: int = 30) -> None:
        """A canvas stays as it is while the browser draws."""
        self.frames(2)  # what was asked for before is drawn
        before = self.pixels(canvas)
        self.frames(frames)
        assert self.pixels(canvas) == before

    def assert_fits(self) -> None:
        """Nothing is wider than the window."""
        seen = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        whole, room = self.page.evaluate(seen)
        assert whole <= room, f"the page is {whole} pixels wide in a window of {room}"

    def show(self, element) -> None:
        """Scrolls until an element is in the middle of the window."""
        element.evaluate("(element) => element.scrollIntoView({block: 'center'})")
        self.frames(2)

    def middle(self, canvas, right: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        """A place on a canvas in the window, given as shares of its sides."""
        box = canvas.bounding_box()
        return box["x"] + right * box["width"], box["y"] + down * box["height"]

    def drag(self, start: tuple[float, float], right: float, down: float) -> None:
        """Drags with the mouse."""
        x, y = start
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for step in range(1, 6):
            self.page.mouse.move(x + right * step / 5, y + down * step / 5)
        self.page.mouse.up()

    def touch(self, *paths: list[tuple[float, float]]) -> None:
        """Moves a finger along each path; all paths have equally many places."""
        session = self.context.new_cdp_session(self.page)

        def send(kind: str, places) -> None:
            points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(places)]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        moments = list(zip(*paths, strict=True))
        send("touchStart", moments[0])
        for moment in moments[1:]:
            send("touchMove", moment)
        send("touchEnd", [])
        self.frames(2)
