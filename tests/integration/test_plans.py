"""Training plans and their arguments, from the researcher's notebook to the reviewer's command line and back."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.training.errors import ArgumentInvalidError
from researcher_kit import Experiment, Federation
from researcher_kit.errors import NodeFailedError, PlanNotApprovedError
from tests.hospitals import PLAN, Hospitals, training_args

RECORD = "Mrs Miller, born 1950"


@pytest.fixture
def text() -> str:
    """A plan's text that no hospital has seen."""
    return PLAN.read_text() + f"\n# {secrets.token_hex(8)}\n"


@pytest.fixture
def file(tmp_path: Path, text: str) -> Path:
    """The same as a file."""
    path = tmp_path / "new_plan.py"
    path.write_text(text)
    return path


def _approve(hospitals: Hospitals, text: str) -> None:
    for node in ("north", "south"):
        hospitals.staff(node).call("plan.add", name="mine", source=text)


def _line_of(text: str, words: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if words in line)


# Texts that do not import


def test_a_text_that_is_not_python_is_refused_at_the_researchers(hospitals: Hospitals, tmp_path: Path) -> None:
    """Before anybody is asked to review it."""
    path = tmp_path / "broken.py"
    path.write_text(PLAN.read_text().replace("return torch.nn.Sequential(", "return torch.nn.Sequential(("))

    with pytest.raises(FedWardError) as refusal:
        hospitals.experiment(None, training_plan_file=path)
    assert refusal.value.code is Code.PLAN_INVALID
    assert f"line {_line_of(path.read_text(), 'Sequential((')}" in refusal.value.message.lower()


def test_a_text_that_does_not_import_at_the_hospital_is_named_by_its_line(
    hospitals: Hospitals, federation: Federation, text: str, file: Path
) -> None:
    """The researcher mends the line; what the exception said, which may be a record, stays at the hospital."""
    fault = f'raise ValueError("{RECORD}")'
    # The researcher has a network and the hospital's runner has none: so the text imports here and not there.
    text = f"import socket\n\ntry:\n    socket.socket().close()\nexcept OSError:\n    {fault}\n" + text
    file.write_text(text)
    _approve(hospitals, text)
    experiment = hospitals.experiment(federation, training_plan_file=file)
    with pytest.raises(NodeFailedError) as failure:
        experiment.run()

    first = failure.value.failures[0]
    assert first.code is Code.PLAN_INVALID
    assert (first.plan_line, first.plan_text) == (6, fault)
    without_its_own_line = str(failure.value).replace(fault, "")
    assert RECORD not in without_its_own_line
    assert "Traceback" not in without_its_own_line
    assert RECORD in hospitals.history(first.node_id).record(experiment.id, 1)


def test_a_step_that_fails_says_its_line_and_not_its_words(
    hospitals: Hospitals, federation: Federation, text: str, file: Path
) -> None:
    """An exception's text is where records get out by accident."""
    text = text.replace("self.steps += 1", "self.steps += 1\n        raise KeyError(str(data[0].tolist()))")
    file.write_text(text)
    _approve(hospitals, text)
    experiment = hospitals.experiment(federation, training_plan_file=file)
    with pytest.raises(NodeFailedError) as failure:
        experiment.run()

    first = failure.value.failures[0]
    assert first.code is Code.TRAINING_FAILED
    assert first.plan_line == _line_of(text, "raise KeyError")
    assert first.message == "The plan failed while it ran."
    record = hospitals.history(first.node_id).record(experiment.id, 1)
    assert "KeyError" in record


# Arguments


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"epochs": 0}, ("'epochs'", "0", "allowed")),
        ({"batchsize": 3}, ("'batchsize' is not known", "batch_size", "Known: ")),
        ({"num_updates": "many"}, ("'num_updates'", "many", "allowed")),
        ({"test_ratio": 1.5}, ("'test_ratio'", "1.5", "allowed")),
        ({"loader_args": {"shufle": True}}, ("shufle", "shuffle")),
    ],
)
def test_a_wrong_training_argument_is_named(
    arguments: dict[str, object], says: tuple[str, ...], hospitals: Hospitals
) -> None:
    """Its name, its value, and what is allowed, before anything is sent."""
    with pytest.raises(ArgumentInvalidError) as refusal:
        hospitals.experiment(None, training_args=training_args() | arguments)

    assert refusal.value.code is Code.ARGUMENT_INVALID
    for words in says:
        assert words in refusal.value.message


def test_an_argument_that_the_experiment_does_not_have_is_named() -> None:
    """A misspelt keyword that is passed over would train something else than was meant."""
    with pytest.raises(FedWardError, match=r"no argument 'trainning_args'.*training_args") as refusal:
        Experiment(trainning_args={})
    assert refusal.value.code is Code.ARGUMENT_INVALID


# Approval


@pytest.fixture
def pending(hospitals: Hospitals, federation: Federation, file: Path) -> Iterator[Experiment]:
    """An experiment whose plan waits for review at both hospitals."""
    experiment = hospitals.experiment(federation, training_plan_file=file, name="study", round_limit=5)
    with pytest.raises(PlanNotApprovedError) as refusal:
        experiment.run_once()
    for hospital in ("North (north)", "South (south)"):
        assert f"{hospital}: the staff have not reviewed it yet; run again when they have." in refusal.value.message
    assert "Ask the hospital to review the plan" in refusal.value.remedy
    yield experiment


def _plan(hospitals: Hospitals, *arguments: object, node: str = "north", expect: int = 0) -> str:
    return hospitals.fedward("node", "plan", *arguments, "--home", hospitals.home(node), expect=expect)


def test_a_reviewer_reads_compares_and_decides(hospitals: Hospitals, pending: Experiment, text: str) -> None:
    """The whole way of a plan at the command line: asked, read, approved, run, revoked, refused."""
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    short = sha256[:12]

    (row,) = [line for line in _plan(hospitals, "list").splitlines() if short in line]
    assert "pending" in row
    assert "alice" in row
    assert text in _plan(hospitals, "show", short)
    assert _plan(hospitals, "diff", short).startswith("No plan of this name was approved before.")

    said = _plan(hospitals, "approve", short, "--note", "Read by two.", "--range", "optimizer_args.lr=0:0.1")
    assert f"approved {sha256}" in said
    hospitals.staff("south").call("plan.approve", plan=short)
    assert pending.run_once() == 1

    pending.set_training_args(training_args() | {"optimizer_args": {"lr": 0.5}})
    with pytest.raises(NodeFailedError, match=r"North \(north\).*'optimizer_args.lr' is outside its range"):
        pending.run_once()
    pending.set_training_args(training_args())

    _plan(hospitals, "revoke", short, "--note", "The study has ended.")
    (row,) = [line for line in _plan(hospitals, "list").splitlines() if short in line]
    assert "revoked" in row
    with pytest.raises((NodeFailedError, PlanNotApprovedError), match=r"North \(north\).*The study has ended"):
        pending.run_once()


def test_a_rejection_reaches_the_researcher_with_its_reason(
    hospitals: Hospitals, pending: Experiment, text: str
) -> None:
    """A no without a why leads to the same request next week."""
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    _plan(hospitals, "reject", sha256[:12], "--note", "Write down what leaves.")

    with pytest.raises(PlanNotApprovedError, match=r"North \(north\): the staff rejected it.*Write down what leaves"):
        pending.run_once()
    assert "rejected" in _plan(hospitals, "show", sha256[:12])


def test_a_changed_plan_is_shown_by_its_difference(hospitals: Hospitals, file: Path, text: str) -> None:
    """A reviewer reads forty lines once, and then the one that changed."""
    name = f"study-{secrets.token_hex(4)}"
    first = _plan(hospitals, "add", file, "--name", name).strip()
    assert first == hashlib.sha256(text.encode()).hexdigest()
    changed = text.replace("torch.nn.ReLU()", "torch.nn.Tanh()")
    sha256 = hashlib.sha256(changed.encode()).hexdigest()
    with hospitals.federation() as federation:
        file.write_text(changed)
        hospitals.experiment(federation, training_plan_file=file, name=name).request_approval("With tanh.")
    diff = _plan(hospitals, "diff", sha256[:12])

    changes = [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert len(changes) == 2
    assert "ReLU" in changes[0]
    assert "Tanh" in changes[1]


@pytest.mark.parametrize("action", ["show", "diff", "approve", "reject", "revoke"])
def test_an_unknown_plan_is_a_sentence(action: str, hospitals: Hospitals) -> None:
    """Whoever mistypes a hash reads which, and nothing is decided."""
    assert "No plan 'fade00fade00' is known here." in _plan(hospitals, action, "fade00fade00", expect=1)


def test_a_plan_file_that_is_no_text_is_a_sentence(hospitals: Hospitals, tmp_path: Path) -> None:
    """Nor is a missing one a traceback."""
    (tmp_path / "plan.py").write_bytes(b"\xff\xfe\x00")

    assert "cannot be read as text" in _plan(hospitals, "add", tmp_path / "plan.py", expect=1)
    assert "No such file" in _plan(hospitals, "add", tmp_path / "none.py", expect=1)
