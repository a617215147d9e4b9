"""The page of `experiments.report` in a browser: matrices zoom and describe their cells, skeletons move."""

import json
import re
import shutil

import numpy as np
import pytest

from experiments.report import page as report
from experiments.report.runs import read_runs

ZOOMED = re.compile("zoomed")


@pytest.fixture(scope="session")
def two_runs(finished_run, tmp_path_factory):
    """The data of a page of two runs, the finished one and another whose scores are mirrored; and the page."""
    folder = tmp_path_factory.mktemp("reported")
    for name in ("run", "mirrored"):
        shutil.copytree(finished_run, folder / name)
    with np.load(finished_run / "scores_test.npz") as stored:
        scores = dict(stored)
    np.savez(folder / "mirrored" / "scores_test.npz", **{**scores, "scores": -scores["scores"]})
    data = report.page_data(read_runs([folder / "run", folder / "mirrored"]), clips=6)
    (folder / "report.html").write_text(report.make_page(data))
    return data, folder / "report.html"


class Matrix:
    """A matrix on the page: what a person uses to look at it."""

    def __init__(self, window, section: str):
        self.window, self.section = window, window.page.locator(f"#{section}")
        self.canvas, self.said = self.section.locator("canvas"), self.section.locator(".grid-said")
        window.show(self.canvas)
        window.until(lambda: window.ink(self.canvas) > 0, "a drawn matrix")

    def pixels(self) -> str:
        return self.window.pixels(self.canvas)

    def zoomed(self) -> bool:
        return bool(ZOOMED.search(self.canvas.get_attribute("class")))

    def press(self, name: str) -> None:
        """Presses a button beside the matrix."""
        self.section.get_by_role("button", name=name, exact=True).click()
        self.window.show(self.canvas)

    def point(self, right: float, down: float) -> str:
        """Points at a place, or taps it; returns the text that appears."""
        x, y = self.window.middle(self.canvas, right, down)
        if self.window.page.evaluate("matchMedia('(pointer: coarse)').matches"):
            self.window.page.touchscreen.tap(x, y)
        else:
            self.window.page.mouse.move(x, y)
        self.window.frames(2)
        return self.said.inner_text()


@pytest.fixture
def opened(open_window, two_runs, size):
    """The page in a window of either size, and its data."""
    data, path = two_runs
    return open_window(path, size), data


def test_every_section_is_there_and_fits(opened):
    window, data = opened
    sections = [
        "Runs",
        "Training",
        "Confusions",
        "Classes",
        "Gains",
        "Hardest clips",
        "Learned adjacency",
        "Refinement",
    ]
    assert window.page.locator("#sections a").all_inner_texts() == sections
    assert window.page.locator("#runs .card h3").all_inner_texts() == [run["name"] for run in data["runs"]]
    window.assert_fits()
    for link in window.page.locator("#sections a").all():
        window.page.locator(link.get_attribute("href")).scroll_into_view_if_needed()
        window.frames(1)
        window.assert_fits()
    for details in window.page.locator("#runs summary").all():
        details.click()  # the whole config
    assert '"batch_size": 8' in window.page.locator("#runs pre").first.inner_text()
    window.assert_fits()


def test_curves_are_drawn(opened):
    window, data = opened
    charts = window.page.locator("#curves svg")
    assert [chart.get_attribute("aria-label") for chart in charts.all()] == [
        f"{name} per epoch" for name in ("Loss", "Top-1", "Learning rate")
    ]
    for lines in charts.all()[:2]:
        assert lines.locator("path").count() == 2 * len(data["runs"])
        assert all(box["width"] > 100 for box in (path.bounding_box() for path in lines.locator("path").all()))


def test_a_cell_that_is_pointed_at_tells_its_value(opened):
    window, data = opened
    matrix, names, confusion = Matrix(window, "confusion"), data["classes"], data["runs"][0]["confusion"]
    cells = {(row, column): clips for row, column, clips in confusion["cells"]}
    matrix.press("show the whole matrix")
    seen = set()
    for down in (0.45, 0.65, 0.95):
        for right in (0.45, 0.7, 0.95):
            said = matrix.point(right, down)
            row, column = (int(found) - 1 for found in re.findall(r"(\d+)\. ", said))
            seen.add((row, column))
            clips, of = cells.get((row, column), 0), confusion["counts"][row]
            assert said == (
                f"True: {row + 1}. {names[row]}. Predicted: {column + 1}. {names[column]}. {clips} of {of} clips."
            )
    assert len(seen) == 9
    assert max(seen) == (len(names) - 1, len(names) - 1)


def test_a_matrix_is_zoomed_by_buttons(opened):
    window, _ = opened
    matrix = Matrix(window, "confusion")
    whole = matrix.pixels()
    matrix.press("zoom in")
    assert matrix.zoomed()
    larger = matrix.pixels()
    assert larger != whole
    matrix.press("zoom in")
    assert matrix.pixels() not in (whole, larger)
    matrix.press("show the whole matrix")
    assert not matrix.zoomed()
    assert matrix.pixels() == whole
    matrix.press("zoom in")
    matrix.press("zoom out")
    assert matrix.pixels() == whole
    window.assert_fits()


def test_a_matrix_is_zoomed_and_read_by_keys(opened):
    window, data = opened
    matrix, names = Matrix(window, "confusion"), data["classes"]
    matrix.canvas.press("ArrowRight")
    assert matrix.said.inner_text().startswith(f"True: 1. {names[0]}. Predicted: 1. {names[0]}.")
    matrix.canvas.press("ArrowDown")
    matrix.canvas.press("ArrowRight")
    assert matrix.said.inner_text().startswith(f"True: 2. {names[1]}. Predicted: 2. {names[1]}.")
    whole = matrix.pixels()
    matrix.canvas.press("+")
    assert matrix.zoomed() and matrix.pixels() != whole
    for _ in names:
        matrix.canvas.press("ArrowDown")  # the matrix moves along, and it ends
    assert matrix.said.inner_text().startswith(f"True: {len(names)}. {names[-1]}. Predicted: 2.")
    matrix.canvas.press("-")
    assert not matrix.zoomed()
    matrix.canvas.press("+")
    matrix.canvas.press("0")
    assert not matrix.zoomed()


def test_a_matrix_is_zoomed_by_the_wheel_with_ctrl_and_moved_by_dragging(open_window, two_runs):
    window = open_window(two_runs[1], "desktop")
    matrix = Matrix(window, "confusion")
    whole, scrolled = matrix.pixels(), window.page.evaluate("scrollY")
    window.page.mouse.move(*window.middle(matrix.canvas, 0.6, 0.6))
    said = matrix.said.inner_text()
    window.page.mouse.wheel(0, 60)  # without Ctrl the page is scrolled past the matrix
    window.until(lambda: window.page.evaluate("scrollY") != scrolled, "a page that is scrolled")
    assert not matrix.zoomed()
    window.show(matrix.canvas)
    window.page.keyboard.down("Control")
    window.page.mouse.move(*window.middle(matrix.canvas, 0.6, 0.6))
    for _ in range(3):
        window.page.mouse.wheel(0, -40)
    window.page.keyboard.up("Control")
    window.until(matrix.zoomed, "a larger matrix")
    assert said
    larger = matrix.pixels()
    assert larger != whole
    window.drag(window.middle(matrix.canvas, 0.6, 0.6), -80, -60)
    assert matrix.pixels() != larger
    window.page.keyboard.down("Control")
    for _ in range(12):
        window.page.mouse.wheel(0, 40)
    window.page.keyboard.up("Control")
    window.until(lambda: not matrix.zoomed(), "the whole matrix")


def test_a_matrix_is_zoomed_by_two_fingers_and_moved_by_one(open_window, two_runs):
    window = open_window(two_runs[1], "phone")
    matrix = Matrix(window, "confusion")
    whole = matrix.pixels()
    x, y = window.middle(matrix.canvas)
    steps = [20 + 10 * step for step in range(6)]
    window.touch([(x - apart, y - apart) for apart in steps], [(x + apart, y + apart) for apart in steps])
    assert matrix.zoomed()
    larger = matrix.pixels()
    assert larger != whole
    window.touch([(x - 12 * step, y - 8 * step) for step in range(6)])
    assert matrix.pixels() != larger
    assert window.page.evaluate("visualViewport.scale") == 1  # the matrix was zoomed, not the page
    window.assert_fits()


def test_the_chosen_run_is_shown(opened):
    window, data = opened
    matrix = Matrix(window, "confusion")
    first, names = matrix.pixels(), [run["name"] for run in data["runs"]]
    table = matrix.section.locator("tbody tr")
    before = table.all_inner_texts()
    matrix.section.get_by_label("run", exact=True).select_option(names[1])
    window.show(matrix.canvas)
    assert matrix.canvas.get_attribute("aria-label") == f"Confusion matrix of {names[1]}"
    assert matrix.pixels() != first
    assert table.all_inner_texts() != before
    matrix.section.get_by_label("run", exact=True).select_option(names[0])
    window.show(matrix.canvas)
    assert matrix.pixels() == first
    assert table.all_inner_texts() == before


def test_learned_matrices_are_chosen_by_block_and_view(opened):
    window, data = opened
    matrix, topologies = Matrix(window, "topologies"), data["runs"][0]["matrices"]["topologies"]
    choices = {name: matrix.section.get_by_label(name, exact=True) for name in ("run", "block", "subset", "view")}
    assert choices["block"].locator("option").count() == len(topologies["blocks"])
    choices["block"].select_option(index=3)
    choices["subset"].select_option(index=1)
    learned = matrix.pixels()
    choices["view"].select_option("initial")
    assert matrix.pixels() != learned
    window.show(matrix.canvas)
    for _ in range(2):  # to the cell in the first row and column, and on to the second row
        matrix.canvas.press("ArrowDown")
    value = topologies["initial"][1][1][0]
    joints = data["runs"][0]["joints"]
    assert matrix.said.inner_text().startswith(f"2. {joints[1]} from 1. {joints[0]}: {value:.4f}.")
    choices["view"].select_option("learned")
    assert f": {topologies['blocks'][3]['learned'][1][1][0]:.4f}." in matrix.said.inner_text()
    window.assert_fits()


def test_a_choice_of_one_is_not_offered(open_window, two_runs, tmp_path):
    data, _ = two_runs
    alone = json.loads(json.dumps({**data, "runs": data["runs"][:1], "scored": [0], "gains": []}))
    for clip in alone["hardest"]:
        clip["runs"] = clip["runs"][:1]
    path = tmp_path / "report.html"
    path.write_text(report.make_page(alone))
    window = open_window(path, "phone")
    assert window.page.locator("#gains").count() == 0
    assert not window.page.locator("#confusion").get_by_label("run", exact=True).is_visible()
    assert window.page.locator("#topologies").get_by_label("block", exact=True).is_visible()
    window.assert_fits()


def test_the_hardest_clips_move_when_asked_to(opened):
    window, data = opened
    assert window.page.locator("article.clip h3").all_text_contents() == [
        data["classes"][clip["label"]] for clip in data["hardest"]
    ]
    player = window.page.locator(".player").first
    window.show(player)
    view, button = player.locator(".player-view"), player.locator("button").first
    window.until(lambda: window.ink(view) > 0, "a drawn skeleton")
    window.assert_still(view)
    button.click()
    window.assert_moves(view)
    button.click()
    window.assert_still(view)
    player.locator("input[type=range]").fill("4")
    assert player.locator(".player-time").inner_text().startswith(("5 / ", "9 / "))
    window.assert_fits()
