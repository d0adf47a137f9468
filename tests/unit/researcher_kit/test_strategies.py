"""When a round is complete."""

from __future__ import annotations

import pytest

from appliance.protocol.errors import Code
from researcher_kit import AllNodes, Quorum, Strategy
from researcher_kit.errors import ExperimentArgumentError, NodeFailure
from researcher_kit.strategies import RoundView, Verdict

NODES = ("a", "b", "c", "d", "e")


def view(arrived: int, failed: int = 0, elapsed_s: float = 0.0) -> RoundView:
    """A round of five nodes."""
    failures = {node: NodeFailure(node, node, Code.INTERNAL, "") for node in NODES[arrived : arrived + failed]}
    return RoundView(frozenset(NODES), frozenset(NODES[:arrived]), failures, elapsed_s)


@pytest.mark.parametrize(
    ("strategy", "round_", "verdict"),
    [
        (AllNodes(), view(4), Verdict.WAIT),
        (AllNodes(), view(5), Verdict.CLOSE),
        (AllNodes(), view(4, failed=1), Verdict.FAIL),
        (AllNodes(), view(4, elapsed_s=1e9), Verdict.WAIT),
        (AllNodes(deadline_s=60), view(4, elapsed_s=60), Verdict.FAIL),
        (Quorum(0.8, deadline_s=60), view(3), Verdict.WAIT),
        (Quorum(0.8, deadline_s=60), view(4), Verdict.CLOSE),
        (Quorum(0.8, deadline_s=60), view(4, failed=1), Verdict.CLOSE),
        (Quorum(0.8, deadline_s=60), view(4, elapsed_s=90), Verdict.CLOSE),
        (Quorum(0.8, deadline_s=60), view(3, elapsed_s=60), Verdict.FAIL),
        (Quorum(0.8, deadline_s=60), view(0, failed=1), Verdict.WAIT),
        (Quorum(0.8, deadline_s=60), view(0, failed=2), Verdict.FAIL),
    ],
)
def test_a_round_waits_closes_or_fails(strategy: Strategy, round_: RoundView, verdict: Verdict) -> None:
    """The rule of each strategy, case by case; a quorum that cannot come any more is not waited for."""
    assert strategy.decide(round_).verdict is verdict


def test_a_strategy_asks_to_be_asked_at_its_deadline() -> None:
    """Nothing polls: whoever waits, waits until then."""
    assert Quorum(0.8, deadline_s=60).decide(view(1, elapsed_s=20)).ask_again_s == 60
    assert AllNodes().decide(view(1)).ask_again_s is None


@pytest.mark.parametrize(("fraction", "nodes", "needed"), [(0.7, 10, 7), (0.5, 3, 2), (0.01, 3, 1), (1, 4, 4)])
def test_a_quorum_is_rounded_up_to_whole_nodes(fraction: float, nodes: int, needed: int) -> None:
    """0.7 of 10 is 7, though in binary it is a little more."""
    assert Quorum(fraction).needed(nodes) == needed


@pytest.mark.parametrize("arguments", [{"fraction": 0}, {"fraction": 1.1}, {"deadline_s": 0}, {"deadline_s": -1}])
def test_a_wrong_quorum_is_refused(arguments: dict[str, float]) -> None:
    """Not at the end of the first round."""
    with pytest.raises(ExperimentArgumentError, match=next(iter(arguments))):
        Quorum(**arguments)


@pytest.mark.parametrize("strategy", [AllNodes(deadline_s=9), Quorum(0.3, deadline_s=5), Quorum(0.3, deadline_s=None)])
def test_a_breakpoint_gives_a_strategy_back(strategy: Strategy) -> None:
    """Resumed under other rules, an experiment would be another one."""
    restored = type(strategy)()
    restored.restore(strategy.state())

    assert repr(restored) == repr(strategy)
