"""A plan's text: taken, hashed, loaded; and where in it an error arose."""

from __future__ import annotations

import dataclasses
import hashlib
import linecache
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from appliance.protocol.errors import Code
from appliance.training import (
    DataManager,
    PlanInvalidError,
    TorchTrainingPlan,
    TrainingArguments,
    describe,
    load_plan,
    plan_line,
    plan_source,
)

TEXT = textwrap.dedent('''\
    import torch
    from appliance.training import DataManager, TorchTrainingPlan


    class North(TorchTrainingPlan):
        """A plan."""

        def init_model(self, model_args):
            return torch.nn.Linear(1, 1)

        def training_data(self):
            return DataManager(torch.zeros(4, 1), torch.zeros(4, 1))

        def training_step(self, data, target):
            return torch.nn.functional.mse_loss(self.model()(data), target)
''')


class _Written(TorchTrainingPlan):
    """A plan as it stands in a notebook."""

    def init_dependencies(self) -> list[str]:
        return ["from __main__ import x", "import torch", "from typing import Any"]

    def init_model(self, model_args: dict[str, Any]) -> Any:
        return torch.nn.Linear(1, 1)  # noqa: F821

    def training_data(self) -> DataManager:
        return DataManager(torch.zeros(4, 1), torch.zeros(4, 1))  # noqa: F821

    def training_step(self, data: Any, target: Any) -> Any:
        return (self.model()(data) - target).square().mean()  # a comment that staff read


def test_a_classs_text_is_its_imports_and_itself() -> None:
    """What staff read is what runs, comments included."""
    source = plan_source(_Written)

    lines = source.text.splitlines()
    assert lines[:4] == [
        "from appliance.training import DataManager, SklearnTrainingPlan, TorchTrainingPlan",
        "from __main__ import x",
        "import torch",
        "from typing import Any",
    ]
    assert "class _Written(TorchTrainingPlan):" in lines
    assert lines[-1].endswith("# a comment that staff read")


def test_a_class_inside_a_function_is_dedented() -> None:
    """Tests and notebooks' cells define plans anywhere."""

    class Inner(_Written):
        def training_step(self, data: Any, target: Any) -> Any:
            return super().training_step(data, target)

    with pytest.raises(PlanInvalidError, match="'_Written' is used and not defined"):
        plan_source(Inner)


def test_of_two_classes_of_one_name_the_defined_one_is_taken() -> None:
    """A notebook's cell is run again and again; each run has a file of its own."""
    plans = []
    for number in (1, 2):
        name, text = f"<cell {number}>", TEXT.replace("Linear(1, 1)", f"Linear(1, {number})")
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(text, name, "exec"), namespace)
        plans.append(namespace["North"])
        plans[-1].init_dependencies = lambda _: ["import torch"]

    assert "Linear(1, 1)" in plan_source(plans[0]).text
    assert "Linear(1, 2)" in plan_source(plans[1]).text


def test_a_files_text_is_taken_byte_by_byte(tmp_path: Path) -> None:
    """The hash is of the file that staff got by mail."""
    path = tmp_path / "plan.py"
    path.write_bytes(TEXT.replace("\n", "\r\n").encode())
    source = plan_source(path)

    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.class_name == "North"


def test_a_text_with_two_plans_needs_a_name() -> None:
    """Guessing would train another model."""
    both = TEXT + TEXT.partition("\n\n\n")[2].replace("North", "South")

    with pytest.raises(PlanInvalidError, match="North, South"):
        plan_source(both)
    assert plan_source(both, "South").class_name == "South"


def test_a_name_that_only_the_notebook_knows_is_told_before_it_travels() -> None:
    """At the hospital it would fail a day later, after the review."""
    with pytest.raises(PlanInvalidError, match="'scale' is used and not defined") as caught:
        plan_source(TEXT.replace("torch.zeros(4, 1), ", "scale(torch.zeros(4, 1)), "))

    assert caught.value.line == 12


@pytest.mark.parametrize("line", ["print('here')", "import torch; print('here')", "no python"])
def test_dependencies_are_imports_only(line: str) -> None:
    """Other code would run at import, outside the class that is read."""

    class Sly(_Written):
        def init_dependencies(self) -> list[str]:
            return [line]

    with pytest.raises(PlanInvalidError, match="import lines"):
        plan_source(Sly)


def test_a_class_without_text_is_refused_with_the_way_out() -> None:
    """A class typed at a bare prompt has none."""
    namespace: dict[str, Any] = {}
    exec(TEXT, namespace)

    with pytest.raises(PlanInvalidError, match="save it to a file"):
        plan_source(namespace["North"])


def test_a_loaded_plan_trains() -> None:
    """From text to update."""
    plan = load_plan(TEXT, "North")()
    plan.build({}, TrainingArguments(), seed=1)

    assert plan.train().iterations == 1


def test_a_plan_may_hold_a_dataclass() -> None:
    """They look their module up while they are made."""
    text = "from __future__ import annotations\nimport dataclasses\n" + TEXT
    text += "\n\n@dataclasses.dataclass\nclass Settings:\n    a: int = 1\n"

    assert dataclasses.is_dataclass(sys.modules[load_plan(text, "North").__module__].Settings)


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        (
            "import torch\n",
            "import tortch\n",
            1,
            "^Line 1 of the plan: ModuleNotFoundError while the plan was imported.$",
        ),
        ("def training_data(self)", "def training_data(self", 11, "not Python"),
        ("    def training_data", "    int('one')\n\n    def training_data", 11, "ValueError"),
        (
            "    def training_data",
            "    import json\n    json.loads('x')\n    def training_data",
            12,
            "not Python's own",
        ),
        ("    def training_data", "    raise SystemExit\n    def training_data", 11, "SystemExit"),
        ("import torch\n", "import torch\nreturn\n", 2, "not Python"),
        ("North", "South", None, "no class 'North'"),
        ("(TorchTrainingPlan)", "(object)", None, "no class 'North'"),
        ("training_step", "train_step", None, "does not define training_step"),
        ("import torch\n", "import torch\0\n", None, "not Python|cannot be read"),
    ],
)
def test_a_text_that_does_not_load_is_told_by_its_line(old: str, new: str, line: int | None, reason: str) -> None:
    """In our words: the exception's text may hold a record."""
    with pytest.raises(PlanInvalidError, match=reason) as caught:
        load_plan(TEXT.replace(old, new), "North")

    assert caught.value.line == line
    assert caught.value.code is Code.PLAN_INVALID


def test_an_error_deep_in_a_library_is_told_by_the_plans_own_line() -> None:
    """The researcher knows his own text; the library's frames stay in the record."""
    plan = load_plan(TEXT.replace("torch.nn.Linear(1, 1)", "torch.nn.Linear(3, 1)"), "North")()
    plan.build({}, TrainingArguments(), seed=1)

    with pytest.raises(RuntimeError) as caught:
        plan.train()
    assert plan_line(caught.value) == 15
    assert describe(caught.value) == "RuntimeError at line 15 of the plan."


def test_an_error_raised_from_another_is_followed_to_the_plan() -> None:
    """The engine may put its own words around it."""
    plan = load_plan(TEXT.replace("return torch.nn.Linear(1, 1)", "return 1 / 0"), "North")()
    try:
        try:
            plan.build({}, TrainingArguments(), seed=1)
        except ZeroDivisionError as error:
            raise PlanInvalidError("in our words") from error
    except PlanInvalidError as wrapped:
        assert plan_line(wrapped) == 9


def test_an_error_of_the_plans_own_class_is_not_named() -> None:
    """A class called Patient_4711 would be a message."""
    text = TEXT.replace("return torch.nn.Linear(1, 1)", 'raise type("Patient4711", (Exception,), {})("4711")')
    plan = load_plan(text, "North")()

    with pytest.raises(Exception) as caught:
        plan.build({}, TrainingArguments(), seed=1)
    assert describe(caught.value) == "An error that is not Python's own at line 9 of the plan."


def test_arguments_and_source_come_without_the_frameworks() -> None:
    """A tool that only reads arguments must not wait for torch."""
    code = (
        "import sys, appliance.training as t; t.TrainingArguments.parse({}); t.plan_source; "
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_plan_that_needs_the_researchers_kit_is_refused_before_anybody_reviews_it() -> None:
    """Hospitals do not have it: four reviewers would have read the plan for nothing."""
    text = "\nfrom researcher_kit import TorchTrainingPlan\n\n\nclass P(TorchTrainingPlan):\n    pass\n"

    with pytest.raises(PlanInvalidError, match="hospitals have no researcher_kit") as caught:
        plan_source(text, "P")
    assert caught.value.line == 2
