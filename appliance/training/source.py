"""A plan's exact text: taken from a researcher's class or file, hashed, and loaded again at a node.

The text that staff approve is the text that runs: nothing is added, left out or reformatted on the way.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import linecache
import re
import symtable
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType, TracebackType

from appliance.training.errors import PlanInvalidError
from appliance.training.plan import TrainingPlan

PLAN_FILENAME = "<training plan>"
_ALWAYS = ("DataManager", "SklearnTrainingPlan", "TorchTrainingPlan")  # the first line, whatever a plan uses of it
_MODULE = "fedward_training_plan"


@dataclass(frozen=True)
class PlanSource:
    """A plan's text.

    Attributes:
        class_name: The plan's class in the text.
        text: The exact text.
        sha256: Of the text in UTF-8, hexadecimal.
    """

    class_name: str
    text: str
    sha256: str


def plan_source(plan: type[TrainingPlan] | Path | str, class_name: str | None = None) -> PlanSource:
    """The exact text of a plan.

    Args:
        plan: A class (its text is the lines of ``init_dependencies`` and the class itself), a file, or a text.
        class_name: Which class of a file or text; needed when there are several plans in it.

    Raises:
        PlanInvalidError: No text to be found, several plans in it, or names in it that it does not define.
    """
    if isinstance(plan, type):
        name, text = plan.__name__, _class_text(plan)
    else:
        text = plan if isinstance(plan, str) and "\n" in plan else _file_text(Path(plan))
        name = class_name or _only_plan(text)
    _compile(text)
    _require_defined(text)
    _require_importable(text)
    return PlanSource(name, text, hashlib.sha256(text.encode()).hexdigest())


def load_plan(text: str, class_name: str) -> type[TrainingPlan]:
    """Execute a plan's text in a module of its own and return its class. Only a runner does this.

    Raises:
        PlanInvalidError: The text does not import (with its line), or holds no such plan.
    """
    code = _compile(text)
    module = ModuleType(_MODULE)
    # Dataclasses look their module up; tracebacks in the node's record show the plan's lines.
    sys.modules[_MODULE] = module
    linecache.cache[PLAN_FILENAME] = (len(text), None, text.splitlines(keepends=True), PLAN_FILENAME)
    try:
        exec(code, module.__dict__)  # noqa: S102 - the purpose of a plan; a node does it inside its sandbox
    except (Exception, SystemExit) as error:
        raise PlanInvalidError(f"{_name(error)} while the plan was imported.", line=plan_line(error)) from error
    found = _plan_class(module, class_name)
    found.text_sha256 = hashlib.sha256(text.encode()).hexdigest()
    return found


def plan_line(error: BaseException) -> int | None:
    """The line of the plan's text where an error arose: of the last frame that lies in the plan, or None.

    An error that was raised from another one is followed to its cause.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        lines = list(_plan_lines(current.__traceback__))
        if lines:
            return lines[-1]
        if isinstance(current, SyntaxError) and current.filename == PLAN_FILENAME:
            return current.lineno
        current = current.__cause__ or current.__context__
    return None


def describe(error: BaseException) -> str:
    """An error of plan or library code in words that hold nothing of its text."""
    line = plan_line(error)
    where = f" at line {line} of the plan" if line else ""
    return f"{_name(error)}{where}."


def _name(error: BaseException) -> str:
    """The class's name where it is Python's own; any other could have been chosen by the plan."""
    kind = type(error)
    return kind.__name__ if getattr(builtins, kind.__name__, None) is kind else "An error that is not Python's own"


def _plan_lines(traceback: TracebackType | None) -> Iterator[int]:
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == PLAN_FILENAME:
            yield traceback.tb_lineno
        traceback = traceback.tb_next


def _compile(text: str) -> CodeType:
    try:
        return compile(text, PLAN_FILENAME, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise PlanInvalidError("the text is not Python.", line=error.lineno) from None
    except (ValueError, RecursionError, MemoryError):
        raise PlanInvalidError("The plan's text cannot be read as Python.") from None


def _require_importable(text: str) -> None:
    """A hospital has no researcher's kit: better said here than after its staff have read the plan."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        if any(name.partition(".")[0] == "researcher_kit" for name in names):
            raise PlanInvalidError(
                "hospitals have no researcher_kit; write 'from appliance.training import …' in a plan's file.",
                line=node.lineno,
            )


def _plan_class(module: ModuleType, class_name: str) -> type[TrainingPlan]:
    plan = getattr(module, class_name, None)
    if not isinstance(plan, type) or not issubclass(plan, TrainingPlan):
        raise PlanInvalidError(f"The plan's text defines no class '{class_name}' derived from a training plan's.")
    _require_hooks(plan)
    return plan


def _require_hooks(plan: type[TrainingPlan]) -> None:
    if plan.__abstractmethods__:
        hook = min(plan.__abstractmethods__)
        raise PlanInvalidError(f"The class '{plan.__name__}' does not define {hook}.")


def _file_text(path: Path) -> str:
    try:
        # In bytes, for text mode would change the ends of lines.
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise PlanInvalidError(f"The plan's file {path.name} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise PlanInvalidError(f"The plan's file {path.name} is not UTF-8.") from None


def _only_plan(text: str) -> str:
    _compile(text)
    names = [
        node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and _base_names(node) & _bases()
    ]
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise PlanInvalidError(f"The text must hold one training plan, or class_name must say which; found: {found}.")
    return names[0]


def _bases() -> set[str]:
    """The plan classes that hospitals have."""
    from appliance import training  # noqa: PLC0415 - whose parts we are

    return {name for name in training.__all__ if name.endswith("TrainingPlan") or name.startswith("Fed")}


def _preamble(lines: str) -> str:
    """What a notebook's class may use without importing it: the usual names, and others of ours that occur in it."""
    from appliance import training  # noqa: PLC0415 - whose parts we are

    used = {node.id for node in ast.walk(ast.parse(lines)) if isinstance(node, ast.Name)} & set(training.__all__)
    return f"from appliance.training import {', '.join(sorted(used.union(_ALWAYS)))}"


def _base_names(node: ast.ClassDef) -> set[str]:
    """The last part of each base's name: ``TorchTrainingPlan`` also for ``training.TorchTrainingPlan``."""
    return {ast.unparse(base).rpartition(".")[2] for base in node.bases}


def _class_text(plan: type[TrainingPlan]) -> str:
    _require_hooks(plan)
    dependencies = plan().init_dependencies()
    for line in dependencies:
        if not isinstance(line, str) or not _is_import(line):
            raise PlanInvalidError("init_dependencies must return a list of import lines.")
    lines = _class_lines(plan)
    return "\n".join([_preamble(lines), *dependencies]) + "\n\n\n" + lines


def _is_import(line: str) -> bool:
    try:
        return all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(line).body)
    except SyntaxError:
        return False


def _class_lines(plan: type[TrainingPlan]) -> str:
    """The class's own lines, dedented.

    They are found by the file and line of one of its methods: in a notebook a class has no file, its methods have,
    and of several classes of one name it is the one that is meant.
    """
    function = next((value for value in vars(plan).values() if isinstance(value, FunctionType)), None)
    lines = linecache.getlines(function.__code__.co_filename) if function else []
    if function is None or not lines:
        remedy = "save it to a file and give the file's path instead"
        raise PlanInvalidError(f"The text of the class '{plan.__name__}' cannot be found; {remedy}.")
    first = function.__code__.co_firstlineno
    text = "".join(lines)
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.ClassDef)
            and node.name == plan.__name__
            and node.lineno <= first <= (node.end_lineno or 0)
        ):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            return textwrap.dedent("".join(lines[start - 1 : node.end_lineno])).rstrip("\n") + "\n"
    raise PlanInvalidError(
        f"The text of the class '{plan.__name__}' has changed since it was defined; define it again."
    )


def _require_defined(text: str) -> None:
    """Raise PlanInvalidError for a name that only the researcher's notebook knows: at a hospital it would fail."""
    top = symtable.symtable(text, PLAN_FILENAME, "exec")
    if re.search(r"^\s*from\s+\S+\s+import\s+\*", text, re.MULTILINE):
        return
    defined = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    defined |= {child.get_name() for child in top.get_children()} | set(dir(builtins)) | {"__name__", "__file__"}
    unknown = sorted(_global_names(top) - defined)
    if unknown:
        raise PlanInvalidError(
            f"the name '{unknown[0]}' is used and not defined in the plan's text; import it in init_dependencies, or "
            "define it inside the class.",
            line=_first_use(text, unknown[0]),
        )


def _global_names(table: symtable.SymbolTable) -> set[str]:
    names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced()}
    if table.get_type() == "module":
        names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()}
    return names.union(*(_global_names(child) for child in table.get_children()))


def _first_use(text: str, name: str) -> int | None:
    uses = [node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name) and node.id == name]
    return min(uses, default=None)
