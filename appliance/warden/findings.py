"""What a reviewer may want to look at in a training plan: hints beside its lines, found in its text alone.

A finding never decides. A plan without one may still do harm, and most findings are in honest plans. The text is
parsed and never run.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

_LINE_END = re.compile(r"\r\n|\r|\n")
MOST = 100  # findings of one kind that are listed; so many of one kind hide none of another
# Signs that leave no mark on a page although they count as printable: Default_Ignorable_Code_Point of Unicode's
# DerivedCoreProperties.txt beyond the format characters, and the empty Braille pattern.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


class Kind(StrEnum):
    """What a finding is about."""

    UNREADABLE = "unreadable"
    IMPORT = "import"
    FILE = "file"
    NETWORK = "network"
    PROCESS = "process"
    DYNAMIC = "dynamic"
    HIDDEN = "hidden"
    RECORD_LOOP = "record-loop"
    OUTPUT = "output"
    OWN_TENSORS = "own-tensors"


@dataclass(frozen=True)
class Finding:
    """A hint.

    Attributes:
        line: The line of the text, from 1.
        what: The name or the sign that was found, as it stands there.
        unlisted: How many more of its kind follow that are not listed.
    """

    kind: Kind
    line: int
    what: str
    unlisted: int = 0


# What a plan needs to describe a model and its training.
_USUAL_IMPORTS = frozenset(
    {
        "__future__", "appliance", "collections", "dataclasses", "declearn", "functools", "itertools", "math", "monai",
        "numpy", "random", "scipy", "sklearn", "torch", "torchvision", "typing",
    }
)  # fmt: skip
_FILE_MODULES = frozenset({"glob", "h5py", "io", "os", "pathlib", "pickle", "shelve", "shutil", "sqlite3", "tempfile"})
_NETWORK_MODULES = frozenset(
    {"aiohttp", "asyncio", "ftplib", "http", "httpx", "requests", "smtplib", "socket", "ssl", "urllib", "websockets"}
)
_PROCESS_MODULES = frozenset(
    {"concurrent", "ctypes", "multiprocessing", "os", "pty", "signal", "subprocess", "threading"}
)
_FILE_CALLS = frozenset(
    {
        "fromfile", "genfromtxt", "load", "loadtxt", "memmap", "open", "read_csv", "read_parquet", "read_pickle",
        "read_table", "read_text", "read_bytes", "save", "savetxt", "savez", "to_csv", "to_pickle", "tofile",
        "write_bytes", "write_text",
    }
)  # fmt: skip
# These are also what a plan calls on its own objects: only behind a library's name do they mean files.
_AMBIGUOUS = frozenset({"load", "save"})
_LIBRARIES = frozenset({"dill", "joblib", "np", "numpy", "pickle", "torch"})
_NETWORK_CALLS = frozenset({"create_connection", "hub", "load_state_dict_from_url", "urlopen", "urlretrieve"})
_PROCESS_CALLS = frozenset({"Popen", "execv", "execve", "fork", "kill", "popen", "spawn", "system"})
_DYNAMIC_CALLS = frozenset(
    {
        "__import__",
        "compile",
        "delattr",
        "eval",
        "exec",
        "getattr",
        "globals",
        "import_module",
        "locals",
        "setattr",
        "vars",
    }
)
_OUTPUT_CALLS = frozenset({"print", "pprint", "warn"})
_LOG_OWNERS = frozenset({"log", "logger", "logging", "stderr", "stdout"})
_LOG_CALLS = frozenset({"critical", "debug", "error", "exception", "info", "log", "warning", "write"})
_ROW_CALLS = frozenset({"iterrows", "itertuples", "items", "tolist"})
_DATA_NAMES = frozenset({"batch", "data", "dataset", "loader", "records", "rows", "samples", "x", "y"})
# A plan's own engine does these: in a plan's text they are unusual.
_TENSOR_METHODS = frozenset({"copy_", "fill_", "index_put_", "masked_fill_", "put_", "scatter_", "set_"})
_TENSOR_ATTRIBUTES = frozenset({"data", "state_dict", "load_state_dict", "get_parameters", "set_parameters"})
_MAX_TEXT = 500  # characters of one literal; a longer one may carry something


def source_lines(source: str) -> list[str]:
    """A plan's text in lines as Python takes them; ``str.splitlines`` ends one at signs that Python passes over."""
    return _LINE_END.split(source)


def lone_returns(source: str) -> list[int]:
    """The lines that a lone carriage return ends: for Python, and so does a comment there; for an editor it goes on."""
    return [number for number, end in enumerate(_LINE_END.finditer(source), 1) if end[0] == "\r"]


def find(source: str) -> list[Finding]:
    """The findings of a plan's text, by line; at most ``MOST`` of a kind, and the last says how many more.

    A text that does not parse has one, which says so: the node would refuse it as well.
    """
    found = set(_hidden_signs(source))
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        found.add(Finding(Kind.UNREADABLE, min(max(error.lineno or 1, 1), len(source_lines(source))), ""))
    except (ValueError, RecursionError, MemoryError):
        found.add(Finding(Kind.UNREADABLE, 1, ""))
    else:
        for node in ast.walk(tree):
            for rule in _RULES:
                found.update(rule(node))
    return _listed(sorted(found, key=lambda finding: (finding.line, finding.kind, finding.what)))


def _listed(found: list[Finding]) -> list[Finding]:
    left, seen = Counter(finding.kind for finding in found), Counter[Kind]()
    listed = []
    for finding in found:
        seen[finding.kind] += 1
        if seen[finding.kind] == MOST:
            listed.append(replace(finding, unlisted=left[finding.kind] - MOST))
        elif seen[finding.kind] < MOST:
            listed.append(finding)
    return listed


def _imports(node: ast.AST) -> Iterator[Finding]:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        modules = ["." * node.level + (node.module or "")]
    else:
        return
    for module in modules:
        top = module.split(".")[0]
        kinds = [
            kind
            for kind, names in (
                (Kind.FILE, _FILE_MODULES),
                (Kind.NETWORK, _NETWORK_MODULES),
                (Kind.PROCESS, _PROCESS_MODULES),
            )
            if top in names
        ]
        if module.startswith("torch.hub"):
            kinds = [Kind.NETWORK]
        if not kinds and top not in _USUAL_IMPORTS:
            kinds = [Kind.IMPORT]
        for kind in kinds:
            yield Finding(kind, node.lineno, f"import {module}")


def _calls(node: ast.AST) -> Iterator[Finding]:
    if not isinstance(node, ast.Call):
        return
    name, owner = _name(node.func), _owner(node.func)
    if name in _FILE_CALLS and (name not in _AMBIGUOUS or owner in _LIBRARIES):
        yield Finding(Kind.FILE, node.lineno, _shown(owner, name))
    if name in _NETWORK_CALLS or owner == "hub":
        yield Finding(Kind.NETWORK, node.lineno, _shown(owner, name))
    if name in _PROCESS_CALLS:
        yield Finding(Kind.PROCESS, node.lineno, _shown(owner, name))
    if name in _DYNAMIC_CALLS and not (name == "compile" and owner in {"re", "torch"}):
        yield Finding(Kind.DYNAMIC, node.lineno, _shown(owner, name))
    if (name in _OUTPUT_CALLS and node.args) or (owner in _LOG_OWNERS and name in _LOG_CALLS):
        yield Finding(Kind.OUTPUT, node.lineno, _shown(owner, name))
    if name in _TENSOR_METHODS:
        yield Finding(Kind.OWN_TENSORS, node.lineno, _shown(owner, name))
    if name in _TENSOR_ATTRIBUTES and name != "data":
        yield Finding(Kind.OWN_TENSORS, node.lineno, _shown(owner, name))


def _attributes(node: ast.AST) -> Iterator[Finding]:
    """Names with two underscores lead to what Python keeps behind an object; ``.data`` is a tensor past its history."""
    if not isinstance(node, ast.Attribute):
        return
    is_inner = node.attr.startswith("__") and node.attr.endswith("__") and node.attr != "__init__"
    if is_inner:
        yield Finding(Kind.DYNAMIC, node.lineno, node.attr)
    if node.attr == "data" and isinstance(node.ctx, ast.Store):
        yield Finding(Kind.OWN_TENSORS, node.lineno, _shown(_owner(node), "data"))


def _stores(node: ast.AST) -> Iterator[Finding]:
    """Values that are put into a parameter or a weight one by one."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        owner = _name(node.value)
        if owner in {"weight", "bias", "data", "grad", "parameters", "params", "state"}:
            yield Finding(Kind.OWN_TENSORS, node.lineno, f"{owner}[…]")


def _free_forms(node: ast.AST) -> Iterator[Finding]:
    """A plan that computes by itself what it returns: no engine stands between its samples and its tensors."""
    for base in node.bases if isinstance(node, ast.ClassDef) else ():
        if _name(base) == "TensorTrainingPlan":
            yield Finding(Kind.OWN_TENSORS, base.lineno, "TensorTrainingPlan")


def _record_loops(node: ast.AST) -> Iterator[Finding]:
    if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        source = node.iter
        line = source.lineno
    else:
        return
    call = source.func if isinstance(source, ast.Call) else None
    inner = source.args[0] if isinstance(source, ast.Call) and source.args else source
    if call is not None and _name(call) in _ROW_CALLS - {"items"}:
        yield Finding(Kind.RECORD_LOOP, line, _shown(_owner(call), _name(call)))
    elif _over(call) in {"", "enumerate", "zip", "list", "iter", "reversed", "sorted"} and _name(inner) in _DATA_NAMES:
        yield Finding(Kind.RECORD_LOOP, line, _name(inner))
    elif _over(call) == "range" and isinstance(inner, ast.Call) and _name(inner.func) == "len" and inner.args:
        name = _name(inner.args[0])
        if name in _DATA_NAMES:
            yield Finding(Kind.RECORD_LOOP, line, f"range(len({name}))")


def _literals(node: ast.AST) -> Iterator[Finding]:
    is_long = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and len(node.value) > _MAX_TEXT
    if is_long and isinstance(node, ast.Constant) and "\n" not in str(node.value):
        yield Finding(Kind.HIDDEN, node.lineno, "long text")


_RULES: tuple[Callable[[ast.AST], Iterator[Finding]], ...] = (
    _imports,
    _calls,
    _attributes,
    _stores,
    _free_forms,
    _record_loops,
    _literals,
)


def _hidden_signs(source: str) -> Iterator[Finding]:
    """Signs that no reader sees, or that turn the writing: the text would read otherwise than it runs."""
    for number in lone_returns(source):
        yield Finding(Kind.HIDDEN, number, "\\r")
    for number, line in enumerate(source_lines(source), 1):
        for sign in line:
            if (not sign.isprintable() and sign != "\t") or _UNSEEN.match(sign):
                yield Finding(Kind.HIDDEN, number, sign.encode("unicode_escape").decode())


def _over(call: ast.expr | None) -> str:
    return "" if call is None else _name(call)


def _name(node: ast.expr) -> str:
    """The last name of what is called or looked at: ``open`` of ``io.open``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _owner(node: ast.expr) -> str:
    """The name before the last one: ``io`` of ``io.open``."""
    return _name(node.value) if isinstance(node, ast.Attribute) else ""


def _shown(owner: str, name: str) -> str:
    return f"{owner}.{name}" if owner else name
