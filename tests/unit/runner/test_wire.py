"""What the supervisor believes of a child."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from appliance import training
from appliance.data import ColumnPlan, Dataset
from appliance.protocol.errors import Code, FedWardError, MessageRefusedError
from appliance.protocol.local.reasons import ARGUMENT_REASONS
from appliance.runner.wire import Crashed, builtin_name, failed_from, parse_from_child
from appliance.training import TrainingArguments, load_plan
from tests.runners import PLAN, plan_with


def crash(**known: object) -> Crashed:
    """A child's account of its failure."""
    return Crashed.model_validate({"job_id": "j-1", "code": Code.TRAINING_FAILED, **known})


@pytest.mark.parametrize("text", ["patient 17", "The loss is not finite at update 1 of 2. patient 17", "\n"])
def test_a_childs_own_words_are_not_repeated(text: str) -> None:
    """They would be a letter from the plan to the researcher."""
    failed = failed_from(crash(message=text), plan_lines=10)

    assert failed.message == "The training plan failed."


@pytest.mark.parametrize("reason", sorted(ARGUMENT_REASONS))
def test_what_an_argument_lacks_is_repeated(reason: str) -> None:
    """It is the researcher's to mend, and holds nothing of anybody's."""
    failed = failed_from(crash(code=Code.ARGUMENT_INVALID, message=reason), plan_lines=10)

    assert failed.message == reason


def test_the_reasons_are_the_training_rooms_own_sentences() -> None:
    """When it changes one, or adds one that is always the same, the list must follow; and none stands there idly."""
    fixed, patterns = set(), []
    for path in Path(training.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "ArgumentInvalidError":
                match call.args[0]:
                    case ast.Constant(value=str() as sentence):
                        fixed.add(sentence)
                    case ast.JoinedStr(values=parts):
                        each = (re.escape(p.value) if isinstance(p, ast.Constant) else ".+" for p in parts)
                        patterns.append(re.compile("".join(each)))

    assert fixed <= ARGUMENT_REASONS
    said = {reason for reason in ARGUMENT_REASONS if any(each.fullmatch(reason) for each in patterns)}
    assert fixed | said == ARGUMENT_REASONS


def test_a_long_number_is_not_repeated() -> None:
    """A number long enough is a text."""
    text = f"The loss is not finite at update {'7' * 40} of 2."

    assert failed_from(crash(message=text), plan_lines=10).message == "The training plan failed."


@pytest.mark.parametrize("name", ["Patient17Error", "print", "__builtins__", ""])
def test_only_builtin_exceptions_are_named(name: str) -> None:
    """A class's name is the plan's to choose."""
    assert failed_from(crash(exception=name), plan_lines=10).message == "The training plan failed."


def test_a_builtin_exception_is_named() -> None:
    """It is half of what a researcher needs."""
    assert failed_from(crash(exception="KeyError"), plan_lines=10).message == "The training plan failed with KeyError."


def test_a_line_beyond_the_plan_is_dropped() -> None:
    """A line is a number that the child chooses."""
    assert failed_from(crash(plan_line=11), plan_lines=10).plan_line is None
    assert failed_from(crash(plan_line=10), plan_lines=10).plan_line == 10


def test_a_code_that_is_not_a_childs_to_say_becomes_its_failure() -> None:
    """A plan must not speak for the hospital's policy."""
    assert failed_from(crash(code=Code.PERMISSION_DENIED), plan_lines=1).code is Code.TRAINING_FAILED


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"kind": "failed"}', b'{"kind": "hello-reply", "pid": 1}'])
def test_what_no_child_says_is_refused(payload: bytes) -> None:
    """A child cannot answer in the supervisor's place."""
    with pytest.raises(MessageRefusedError):
        parse_from_child(payload)


def test_the_nearest_builtin_class_is_found() -> None:
    """Libraries derive theirs from Python's."""
    assert builtin_name(UnicodeError()) == "UnicodeError"
    assert builtin_name(type("Own", (OSError,), {})()) == "OSError"


@pytest.mark.parametrize(
    "plan",
    [
        plan_with("self.model().weight.data.fill_(float('nan'))"),
        PLAN.replace("return torch.nn.functional", "return 1.0 or torch.nn.functional"),
        PLAN.replace("return torch.nn.Linear(", "return (").replace(
            ", 1)\n\n    def init_opt", ")\n\n    def init_opt"
        ),
        PLAN.replace("return torch.optim.SGD(self.model().parameters(), lr=optimizer_args", "return (optimizer_args"),
        f"{PLAN}\n    def init_scheduler(self):\n        return 1\n",
        f"{PLAN}\n    def training_update(self, data, target):\n        return None\n",
        PLAN.replace("return DataManager(", "return dict(a=")
        .replace(", batch_size=10", ", b=1")
        .replace(", self.d", ", c=self.d"),
    ],
    ids=["loss", "step", "model", "optimizer", "scheduler", "update", "data"],
)
def test_what_our_own_room_says_of_a_plan_is_repeated(plan: str) -> None:
    """These sentences are the training room's: when it changes one, this list must follow."""
    values = {name: np.arange(20, dtype=np.float64) % 2 for name in ("x", "y")}
    dataset = Dataset({name: ColumnPlan(source=name) for name in values}, values, np.arange(2, 22))
    made = load_plan(plan, "Logistic")()
    with pytest.raises(FedWardError) as caught:
        made.build({}, TrainingArguments(), seed=1)
        made.attach(dataset)
        made.train()

    assert failed_from(crash(message=caught.value.message), plan_lines=1).message == caught.value.message
