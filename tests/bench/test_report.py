"""The report stands alone, holds all figures and is the same every time."""

import re

import pytest

from normkit.bench.report import render
from normkit.bench.summary import summarise

from ..study.browser import console_and_dom
from ..study.test_report import Outline
from .conftest import make_bench


@pytest.fixture(scope="module")
def page():
    return page_of(make_bench())


def page_of(bench):
    return render(bench, summarise(bench))


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


def test_plots_have_words_with_their_figures(page):
    plots = [attributes for tag, attributes in Outline(page).tags if tag == "svg" and "role" in attributes]
    labels = [plot["aria-label"] for plot in plots]
    assert labels == [
        "Share of the floor in float32: RMSNorm, forward 50% to 50%; LayerNorm, forward 50% to 90%",
        "Times as fast in float32: RMSNorm, forward 2.00x PyTorch; RMSNorm, backward 2.00x PyTorch; "
        "LayerNorm, forward 1.34x PyTorch",
    ]
    assert not re.search(r"#0[0-9a-b]0[0-9a-b]0[0-9a-b]\b", page)


def test_the_page_holds_the_figures_and_escapes_names(page):
    flat = re.sub(r"<[^>]+>", " ", page)
    flat = " ".join(flat.split())
    assert "a &lt;processor&gt; &amp; more" in page
    assert "512x4096 bfloat16 unsteady, 12%" in flat
    assert "wrong, 7.00x" in flat
    assert "2.00 ms 1.80 ms to 2.40 ms 10.0 ms" in flat
    assert "ONNX Runtime inference only 6" in flat
    assert "1.64x as fast as PyTorch" in flat


def test_rendering_is_deterministic(page):
    assert page_of(make_bench()) == page


def test_chromium_shows_it_without_a_console_message(tmp_path, page):
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    console, dom = console_and_dom(path)
    assert console == []
    assert "How near the floor" in dom


def test_no_steady_row_still_makes_a_page():
    rows = [row for row in make_bench().rows if not row.steady]
    assert "unsteady" in page_of(make_bench(rows))
