"""Pages that hold everything themselves: text stays text, scripts are admitted by digest."""

import base64
import hashlib
import html.parser
import json
import re

import pytest

from mmcl_jax.viewers import html_page

HOSTILE = "</script><script>alert(1)</script><!-- /*style*/ <!--title--> & \"'\u2028\ud800"


class Elements(html.parser.HTMLParser):
    """Collects the tags of a page and the text of each script, style and title."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.texts.append((tag, ""))

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] = (self.texts[-1][0], self.texts[-1][1] + data)

    def handle_endtag(self, tag):
        self.texts.append(("", ""))

    def text(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture
def page(tmp_path) -> str:
    script, style = tmp_path / "page.js", tmp_path / "page.css"
    script.write_text('"use strict"; // <!--data-->\n')
    style.write_text("body { margin: 0 }")
    return html_page.fill("data_prep.inspect", HOSTILE, {HOSTILE: [HOSTILE, 1.5]}, [script], [style])


def test_text_stays_text(page):
    page.encode()  # the lone surrogate is spelled out
    elements = Elements(page)
    data, script = elements.text("script")
    assert json.loads(data) == {HOSTILE: [HOSTILE, 1.5]}
    assert script == '"use strict"; // <!--data-->\n'
    assert elements.text("title") == [HOSTILE.replace("\ud800", "?")]
    assert elements.text("style") == ["body { margin: 0 }"]


def test_only_the_page_s_own_scripts_may_run(page):
    (policy,) = (attributes["content"] for _, attributes in Elements(page).tags if "http-equiv" in attributes)
    (allowed,) = re.findall(r"script-src (.*)$", policy)
    digest = hashlib.sha256(Elements(page).text("script")[1].encode()).digest()
    assert allowed == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert policy.startswith("default-src 'none';")


def test_the_page_loads_nothing(page):
    for tag, attributes in Elements(page).tags:
        assert tag not in ("iframe", "object", "embed")
        assert all(attributes.get(key, "data:").startswith("data:") for key in ("src", "href"))


def test_numbers_that_json_does_not_know_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        html_page.fill("data_prep.inspect", "", [float("nan")], [], [])
