"""The page of `data_prep.inspect` in a browser: skeletons move and are scrubbed and turned, clips are found."""

import pytest

from data_prep import inspect
from mmcl_jax.data import records
from tests.data_prep.test_inspect import odd_records


@pytest.fixture(scope="session")
def page(tiny_records, tmp_path_factory):
    """The page of the tiny records."""
    return inspect.write_page(tiny_records, tmp_path_factory.mktemp("inspected") / "page.html", clips=24)


def first_player(window):
    """The first skeleton player, in the middle of the window, with its canvases and controls."""
    player = window.page.locator(".player").first
    window.show(player)
    view, strip = player.locator(".player-view"), player.locator(".player-strip")
    window.until(lambda: window.ink(view) > 0, "a drawn skeleton")
    return player, view, strip


def paused_player(window):
    """The first skeleton player, stopped at its first frame."""
    player, view, strip = first_player(window)
    player.locator("button").first.click()
    scrub(player, 0)
    window.frames(2)
    return player, view, strip


def scrub(player, frame: int) -> None:
    """Moves the slider to a frame, as a drag of its thumb does."""
    player.locator("input[type=range]").fill(str(frame))


def test_every_section_is_there_and_fits(open_window, page, size):
    window = open_window(page, size)
    assert window.page.locator("#sections a").all_inner_texts() == [
        "Overview",
        "Counts",
        "Left out",
        "Text sets",
        "Clips",
    ]
    assert window.page.locator(".tile").first.is_visible()
    assert window.page.locator("article.clip").count() == 24
    window.assert_fits()
    for link in window.page.locator("#sections a").all():
        window.page.evaluate("scrollTo(0, 0)")
        link.click()
        window.frames(2)
        assert window.page.locator(link.get_attribute("href")).evaluate(
            "(section) => section.getBoundingClientRect().top < innerHeight"
        )
        window.assert_fits()


def test_pictures_are_shown(open_window, page, size):
    window = open_window(page, size)
    picture = window.page.locator(".mosaic img").first
    window.show(picture)
    window.until(lambda: picture.evaluate("(image) => image.complete && image.naturalWidth > 0"), "a picture")
    assert picture.bounding_box()["width"] > 200


def test_a_skeleton_moves_and_stops(open_window, page, size):
    window = open_window(page, size)
    player, view, _ = first_player(window)
    button = player.locator("button").first
    window.assert_moves(view)
    assert button.get_attribute("aria-label").startswith("pause ")
    button.click()
    window.assert_still(view)
    assert button.get_attribute("aria-label").startswith("play ")
    button.click()
    window.assert_moves(view)


def test_the_scrubber_shows_the_frame_that_it_is_moved_to(open_window, page, size):
    window = open_window(page, size)
    player, view, strip = paused_player(window)
    time, slider = player.locator(".player-time"), player.locator("input[type=range]")
    frames = int(slider.get_attribute("max")) + 1
    assert time.inner_text() == f"1 / {frames}"
    first = window.pixels(view)
    scrub(player, frames // 2)
    assert time.inner_text() == f"{frames // 2 + 1} / {frames}"
    assert window.pixels(view) != first
    scrub(player, 0)
    assert window.pixels(view) == first
    view.press("ArrowRight")
    assert time.inner_text() == f"2 / {frames}"
    view.press("ArrowLeft")
    view.press("ArrowLeft")
    assert time.inner_text() == f"{frames} / {frames}"  # round the end
    box = strip.bounding_box()
    (strip.tap if size == "phone" else strip.click)(position={"x": 0.5 * box["width"], "y": 0.5 * box["height"]})
    shown = int(slider.input_value())
    assert abs(shown - frames / 2) <= 1  # the fourth of seven moments
    assert window.ink(strip) > window.ink(view) / 10
    window.assert_still(view)


def test_a_skeleton_plays_to_its_end_and_again_at_another_speed(open_window, page):
    window = open_window(page, "desktop")
    player, view, _ = paused_player(window)
    slider, rate = player.locator("input[type=range]"), player.locator("button").last
    assert [rate.inner_text(), *(rate.click() or rate.inner_text() for _ in range(3))] == ["1×", "½×", "¼×", "1×"]
    last = int(slider.get_attribute("max"))
    scrub(player, last - 1)
    view.press(" ")
    window.until(lambda: int(slider.input_value()) < last - 1, "the beginning after the end")
    assert player.locator("button").first.get_attribute("aria-label").startswith("pause ")


def test_a_skeleton_is_turned_by_dragging(open_window, page, size):
    window = open_window(page, size)
    _, view, _ = paused_player(window)
    straight = window.pixels(view)
    x, y = window.middle(view)
    if size == "phone":
        window.touch([(x + 10 * step, y) for step in range(8)])
    else:
        window.drag((x, y), 90, 40)
    assert window.pixels(view) != straight
    if size == "desktop":
        view.dblclick()
        assert window.pixels(view) == straight


def test_all_skeletons_are_stopped_and_started_at_once(open_window, page, size):
    window = open_window(page, size)
    _, view, _ = first_player(window)
    everyone = window.page.get_by_role("button", name="all", exact=False).filter(has_text="Pause all")
    window.show(everyone)
    everyone.click()
    labels = window.page.locator(".player-controls button:first-child").evaluate_all(
        "(buttons) => buttons.map((button) => button.ariaLabel.split(' ')[0])"
    )
    assert labels == ["play"] * 24
    window.assert_still(view)
    window.page.get_by_text("Play all").click()
    window.assert_moves(view)


def test_who_wants_no_motion_sees_none_until_asking(open_window, page):
    window = open_window(page, "desktop", reduced_motion="reduce")
    player, view, _ = first_player(window)
    window.assert_still(view)
    player.locator("button").first.click()
    window.assert_moves(view)


def test_skeletons_are_drawn_in_the_colors_of_a_dark_page(open_window, page):
    window = open_window(page, "desktop")
    _, view, _ = paused_player(window)
    light = window.pixels(view)
    window.page.emulate_media(color_scheme="dark")
    window.until(lambda: window.pixels(view) != light, "dark colors")


def test_clips_are_found_by_text_and_class(open_window, page, size, tiny_records):
    window = open_window(page, size)
    names = records.Records(tiny_records).info.class_names
    visible = window.page.locator("article.clip:visible")
    search, choice = window.page.get_by_label("search clips"), window.page.get_by_label("class", exact=True)
    found = window.page.locator("#clips p[aria-live]")
    search.fill(names[2].upper())
    count = visible.count()
    assert 0 < count < 24
    assert all(names[2] in text for text in visible.all_text_contents())
    assert found.inner_text() == f"{count} of the 24 clips on this page"
    search.fill("nothing is called so")
    assert visible.count() == 0
    search.fill("")
    assert visible.count() == 24 and found.inner_text() == ""
    choice.select_option(names[5])
    assert set(visible.locator("h3").all_text_contents()) == {names[5]}
    window.assert_fits()
    choice.select_option("")
    bar = window.page.locator("#counts button.bar").nth(7)
    bar.click()
    assert choice.input_value() == names[7]
    assert set(visible.locator("h3").all_text_contents()) == {names[7]}
    window.assert_fits()


def test_names_that_are_markup_are_only_read(open_window, size, tmp_path):
    odd_records(tmp_path / "odd")
    window = open_window(inspect.write_page(tmp_path / "odd", clips=6), size)
    assert window.page.get_by_text("</script><script>alert(1)</script>").count() > 10
    window.assert_fits()
    _, view, _ = first_player(window)  # two-dimensional, with a confidence for each joint
    window.assert_moves(view)
    assert "turns" not in view.get_attribute("class")
