"""The page of `mmcl_jax.predict` in a browser: skeletons move with the clock, curves follow, nothing is loaded."""

import pytest

from mmcl_jax.recognition.page import write_page
from tests.recognition import people
from tests.recognition.test_pictures import EVENTS


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """A person whose action changes from one that is known to one that is not."""
    out = tmp_path_factory.mktemp("recognized") / "page.html"
    write_page(out, people.poses((0, 59)), EVENTS, people.CLASSES, 0.3)
    return out


def test_skeletons_play_and_the_slider_leads_to_another_action(open_window, page, size):
    window = open_window(page, size)
    window.assert_fits()
    canvas, label = window.page.locator("canvas"), window.page.locator(".now")
    window.until(lambda: window.ink(canvas) > 0, "a drawn skeleton")
    window.assert_still(canvas)
    assert label.inner_text() == "wave 90 %"
    slider = window.page.locator("input[type=range]")
    for frame, text in ((25, "kick 90 %"), (50, "unknown action"), (35, "")):
        slider.fill(str(frame))
        window.frames(2)
        assert label.inner_text() == text
    play = window.page.get_by_role("button", name="Play")
    play.click()
    window.assert_moves(canvas)
    window.page.get_by_role("button", name="Pause").click()
    window.assert_still(canvas)
    chart = window.page.locator(".person svg")
    window.show(chart)
    box = chart.bounding_box()
    assert box["width"] > 250 and box["height"] > 100
    window.page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    window.frames(2)
    assert 25 <= int(slider.input_value()) <= 35
    assert chart.locator("path").count() == 4
