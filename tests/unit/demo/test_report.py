"""The report as a page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from appliance.demo.report import duration, render, size, summary, write_report

_VOID = {"meta", "br", "hr", "img", "input", "link"}


class _Page(HTMLParser):
    """Collects tags and attributes, and notices tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.values, self.open, self.faults = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.values += [(tag, name, value) for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


def test_the_page_needs_nothing_else(results) -> None:
    """It is opened from a disk, years later, without a network."""
    page = _Page(render(results))

    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [value for value in page.values if value[1] in {"src", "href", "srcset", "xlink:href"}]
    assert not re.search(r"https?://|url\(|@import", render(results))


def test_every_tag_is_closed(results) -> None:
    """A browser would guess, each in its own way."""
    page = _Page(render(results))

    assert (page.faults, page.open) == ([], [])


def test_names_are_shown_and_never_run(results) -> None:
    """A hospital's name is a text that somebody else wrote."""
    hostile = results.hospitals["north"].model_copy(update={"name": "<script>alert(1)</script>"})
    page = render(results.model_copy(update={"hospitals": results.hospitals | {"north": hostile}}))

    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_every_plot_has_its_table(results) -> None:
    """Whoever cannot see the plot, or wants the numbers, finds them."""
    tags = _Page(render(results)).tags

    assert (tags.count("svg"), tags.count("table")) == (8, 4)  # each plot is drawn for wide and narrow pages


def test_the_page_says_what_the_label_is_not(results) -> None:
    """Bleeding gums at visit 5 are not an outcome of birth."""
    assert "not an outcome of birth" in render(results)


def test_the_page_says_who_approved(results) -> None:
    """A reader must not take the demo's clicks for a hospital's decision."""
    assert re.search(r"the demo played the\s+hospitals(&#x27;|') reviewers", render(results))


def test_the_summary_has_the_figures(results) -> None:
    """The first sentence is the one that is read."""
    assert "AUC 0.831 against 0.836" in summary(results)


@pytest.mark.parametrize(
    ("federated", "words"),
    [(0.70, "is not as good as"), (0.82, "is nearly as good as"), (0.834, "is as good as"), (0.9, "is better than")],
)
def test_the_summary_says_what_the_numbers_say(results, federated, words) -> None:
    """A sentence that always praises is no result."""
    assert words in summary(results.model_copy(update={"federated_auc": federated}))


def test_a_hospital_that_did_better_alone_is_counted(results) -> None:
    """The report must not claim what did not happen."""
    page = render(results.model_copy(update={"local_auc": {"north": 0.742, "south": 0.95}}))

    assert "It beats one of the two hospitals" in page
    assert "South Hospital alone did as well" in page


def test_an_unknown_hospital_is_shown_by_its_id(results) -> None:
    """Names and sizes are a courtesy, not a condition."""
    assert "north" in render(results.model_copy(update={"hospitals": {}, "egress": {}}))


def test_the_report_is_written_as_utf_8(results, tmp_path) -> None:
    """The page says so in its head."""
    write_report(results, tmp_path / "report.html")

    assert "±" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (34_567, "34.6 kB"), (999_700, "1.0 MB"), (5e12, "5000 GB")],
)
def test_sizes_are_readable(count, text) -> None:
    """Nobody counts digits."""
    assert size(count).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(("seconds", "text"), [(0.31, "310 ms"), (2.1, "2.1 s")])
def test_times_are_readable(seconds, text) -> None:
    """Nobody counts zeros."""
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == text
