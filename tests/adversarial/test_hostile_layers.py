"""Frozen layers that are not the model's: what a researcher, or who stands between, may name in a request.

Each is refused before the runner sees anything of it, and the answer says that it was the frozen layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from appliance.protocol.errors import Code
from appliance.protocol.messages import ErrorReply, SealedFile
from tests.conftest import Members
from tests.unit.warden.conftest import Node

BASE = np.ones((4, 3), np.float32)


@pytest.fixture
def node(tmp_path: Path, members: Members) -> Iterator[Node]:
    """A node that trains for alice."""
    node = Node(tmp_path, members)
    node.model = {"w": np.zeros(2, np.float32), "frozen/small": np.zeros(2, np.float32)}
    yield node
    node.close()


def refused(node: Node, layers: SealedFile, *, parameters: SealedFile | None = None) -> ErrorReply:
    """What alice is told of a round with these layers."""
    node.round(node.accepted(frozen=layers, **({"parameters": parameters} if parameters else {}))).run()
    (answer,) = node.received("alice", ErrorReply)
    assert node.runner.trained == []
    return answer


def test_layers_of_another_experiment_are_refused(node: Node) -> None:
    """Whoever carries the post could else hand a node another model than the one that was agreed upon."""
    answer = refused(node, node.layers({"base": BASE}, experiment="e-2"))

    assert answer.code is Code.SEAL_BROKEN
    assert "frozen layers" in answer.message
    assert "another experiment" in answer.message


def test_layers_that_were_altered_are_refused(node: Node) -> None:
    """Under a hash that fits: the network host, or a researcher's own machine, may write a message's parts anew."""
    asked, other = node.layers({"base": BASE}), node.layers({"base": 2 * BASE})
    answer = refused(node, other.model_copy(update={"content_key": asked.content_key}))

    assert answer.code is Code.SEAL_BROKEN
    assert "altered" in answer.message


@pytest.mark.parametrize("name", ["w", "small", "aggregator/w", "frozen/w"])
def test_a_layer_by_another_tensors_name_is_refused(node: Node, name: str) -> None:
    """Of two tensors of one name, one would be trained in the other's place, or leave in its update."""
    answer = refused(node, node.layers({"base": BASE, name: np.ones(2, np.float32)}))

    assert answer.code is Code.PARAMETERS_INVALID
    assert "A frozen layer has the name of a tensor that travels with the parameters" in answer.message


def test_what_is_no_tensor_file_is_refused(node: Node) -> None:
    """Nothing else is ever parsed outside of the sandbox."""
    assert refused(node, node.layers(b"PK\x03\x04" + bytes(64))).code is Code.PARAMETERS_INVALID
