"""Hints in a plan's text: each rule with what it must find and what it must leave alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from appliance.warden.findings import MOST, Finding, Kind, find, source_lines

DEMO = Path(__file__).parents[3] / "appliance/demo/plan.py"

FOUND = {
    Kind.UNREADABLE: ("x = = 1", "x = 1"),
    Kind.IMPORT: ("import requests_toolbelt", "import torch, numpy as np\nfrom sklearn import svm"),
    Kind.FILE: ("open('/etc/passwd')", "self.model().load_state_dict"),
    Kind.NETWORK: ("import socket", "from torch import nn"),
    Kind.PROCESS: ("import subprocess", "import itertools"),
    Kind.DYNAMIC: ("eval('x')", "self.model().eval"),
    Kind.HIDDEN: ("x = 1  # \u202e", "x = 'Größe'  # 3 µm²"),
    Kind.RECORD_LOOP: ("for row in data:\n    pass", "for layer in self.layers:\n    pass"),
    Kind.OUTPUT: ("print(x)", "x = 'print'"),
    Kind.OWN_TENSORS: ("model.weight.data[0] = 1", "loss = model(data) * 2"),
}
MORE = {
    "import os": {Kind.FILE, Kind.PROCESS},
    "from urllib.request import urlopen\nurlopen(x)": {Kind.NETWORK},
    "torch.hub.load('a', 'b')": {Kind.NETWORK},
    "torch.load(p)": {Kind.FILE},
    "np.save(p, x)": {Kind.FILE},
    "frame.to_csv(p)": {Kind.FILE},
    "pathlib.Path(p).write_text(t)": {Kind.FILE},
    "os.system('x')": {Kind.PROCESS},
    "getattr(x, name)": {Kind.DYNAMIC},
    "x.__class__.__bases__": {Kind.DYNAMIC},
    "__import__('so' + 'cket')": {Kind.DYNAMIC},
    "importlib.import_module(n)": {Kind.DYNAMIC},
    "[f(x) for x in batch]": {Kind.RECORD_LOOP},
    "for i in range(len(data)):\n    pass": {Kind.RECORD_LOOP},
    "for i, r in enumerate(self.dataset):\n    pass": {Kind.RECORD_LOOP},
    "for r in frame.iterrows():\n    pass": {Kind.RECORD_LOOP},
    "logging.info(x)": {Kind.OUTPUT},
    "sys.stdout.write(x)": {Kind.OUTPUT},
    "layer.weight.copy_(x)": {Kind.OWN_TENSORS},
    "p.data = x": {Kind.OWN_TENSORS},
    f"x = '{'a' * 600}'": {Kind.HIDDEN},
}


@pytest.mark.parametrize("kind", FOUND)
def test_a_rule_finds_what_it_is_for_and_leaves_the_like_alone(kind: Kind) -> None:
    """A hint at everything is a hint at nothing."""
    harm, harmless = FOUND[kind]

    assert kind in {finding.kind for finding in find(harm)}
    assert kind not in {finding.kind for finding in find(harmless)}


def test_every_rule_has_its_two_examples() -> None:
    """Also the one that is added tomorrow."""
    assert FOUND.keys() == set(Kind)


@pytest.mark.parametrize("text", MORE)
def test_what_hides_the_same_is_found_too(text: str) -> None:
    """Each of these is a way that somebody would try."""
    assert MORE[text] <= {finding.kind for finding in find(text)}


def test_a_finding_names_its_line_and_what_stands_there() -> None:
    """It is shown beside it."""
    assert find("x = 1\n\nopen(p)\n") == [Finding(Kind.FILE, 3, "open")]


@pytest.mark.parametrize(
    "sign", ["\n", "\r", "\r\n", "\r\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
)
def test_lines_are_those_of_python(sign: str) -> None:
    """What stands behind a comment runs only where Python ends the line, and there we end it too."""
    text = f"# a{sign}x = 1\ny = 2"
    (*_, last) = ast.parse(text).body

    lines = source_lines(text)
    assert (len(lines), lines[-1]) == (last.lineno, "y = 2")
    assert ("x = 1" in lines) is (len(ast.parse(text).body) == 2)


def test_a_lone_carriage_return_is_found_in_a_plan_that_is_there_already() -> None:
    """Older releases took them."""
    found = find("x = 1\r\n# a\ropen(p)\r\n")
    assert found == [Finding(Kind.HIDDEN, 2, "\\r"), Finding(Kind.FILE, 3, "open")]


def test_an_honest_plan_has_none() -> None:
    """A reviewer who always sees hints stops to look."""
    assert find(DEMO.read_text()) == []


@pytest.mark.parametrize(
    "text",
    ["-" * 100_000 + "1", "(" * 1000, "1" + "+1" * 50_000, "a" + ".a" * 50_000, "\0", "lambda:" * 20_000 + "0", ""],
)
def test_a_text_that_is_made_to_break_a_parser_breaks_nothing(text: str) -> None:
    """The GUI reads what strangers send."""
    assert len(find(text)) <= 2


@pytest.mark.parametrize("sign", "\u034f\u115f\u2800\u3164\ufe0f\uffa0\u200b\U000e0041\U000e0100")
def test_a_sign_that_leaves_no_mark_is_found(sign: str) -> None:
    """Two names would look alike, or a text would be longer than it seems."""
    assert find(f"x = 1  # a{sign}b") == [Finding(Kind.HIDDEN, 1, sign.encode("unicode_escape").decode())]


def test_many_findings_of_a_kind_are_counted_and_hide_none_of_another() -> None:
    """Else whoever has something to hide would put it behind what is harmless."""
    found = find("print(x)\n" * (MOST + 30) + "import socket\n")

    assert [finding.unlisted for finding in found if finding.kind is Kind.OUTPUT] == [0] * (MOST - 1) + [30]
    assert found[-1] == Finding(Kind.NETWORK, MOST + 31, "import socket")
