import dataclasses
import re
from html.parser import HTMLParser

import pytest

from normkit.study.report import render
from normkit.study.summary import summarise
from normkit.study.table import build_table

from .browser import console_and_dom
from .conftest import make_comparison


def page_of(comparison):
    summary = summarise(comparison)
    return render(comparison, summary, build_table(comparison, summary))


@pytest.fixture(scope="module")
def page(comparison):
    return page_of(comparison)


class Outline(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.wrong = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_page_stands_alone(page):
    outline = Outline(page)
    assert "script" not in {tag for tag, _ in outline.tags}
    outside = [
        value
        for _, attributes in outline.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href") and not value.startswith(("#", "data:"))
    ]
    assert outside == []
    assert not re.search(r"@import|url\((?!#)", page)


def test_the_page_is_well_formed(page):
    outline = Outline(page)
    assert (outline.wrong, outline.open) == ([], [])
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert set(used) <= set(ids)


def test_every_plot_has_words_with_its_figures(page):
    plots = [attributes for tag, attributes in Outline(page).tags if tag == "svg" and "role" in attributes]
    assert len(plots) == 2 + 2 + 2 + 2 + 1 + 2
    assert all(len(plot["aria-label"]) > 40 for plot in plots)
    assert any("BatchNorm 60.0 ± 0.2 % at 2" in plot["aria-label"] for plot in plots)
    assert not re.search(r"#0[1-7]0[1-7]0[1-7]", page)


def test_the_page_holds_the_table_and_escapes_names(page, comparison):
    for row in build_table(comparison, summarise(comparison)):
        assert row.title in page
    assert "falls in small batches: MLP" in page
    assert "a &lt;processor&gt; &amp; more" in page
    assert "rehearsal" not in page


def test_a_rehearsal_says_so(comparison):
    settings = dataclasses.replace(comparison.settings, rehearsal=True)
    assert "rehearsal" in page_of(dataclasses.replace(comparison, settings=settings))


def test_rendering_is_deterministic(page, comparison):
    assert page_of(comparison) == page


def test_one_seed_renders():
    assert "cannot be told from one seed" in page_of(make_comparison(seeds=1))


def test_chromium_shows_it_without_a_console_message(tmp_path, page):
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    console, dom = console_and_dom(path)
    assert console == []
    assert "Dependence on batch size" in dom


@pytest.mark.parametrize(
    "fault",
    ["<script>throw new Error('on purpose')</script>", "<script>console.error('on purpose')</script>"],
)
def test_the_browser_check_sees_faults(tmp_path, page, fault):
    path = tmp_path / "faulty.html"
    path.write_text(page.replace("</body>", f"{fault}</body>"), encoding="utf-8")
    console, _ = console_and_dom(path)
    assert console
