"""A trained model as files that others can open and check, with the card that says where it comes from.

model.safetensors    the parameters
state_dict.pt        the same for torch.load, of plans for PyTorch
model_card.md        what it was trained on, how, by whom, and how well, for people
model_card.json      the same for programs
training_plan.py     the exact text that the hospitals approved
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2

from appliance.protocol.errors import Code, FedWardError, takes_no_more
from appliance.protocol.messages import CARD_FILE, CARD_TEXT, MODEL_FILE
from appliance.protocol.tensors import TensorFile, write_tensors
from appliance.training.standardise import PREFIX as STANDARDISATION
from researcher_kit.breakpoints import file_sha256
from researcher_kit.errors import ExperimentArgumentError
from researcher_kit.history import History, RoundRecord
from researcher_kit.tables import printable

STATE_FILE, PLAN_FILE = "state_dict.pt", "training_plan.py"
_PACKAGES = ("fedward", "torch", "scikit-learn", "numpy", "safetensors")


def write_export(folder: Path, parameters: Path, plan_text: str, card: dict[str, Any], *, is_torch: bool) -> Path:
    """Write a model's files into a folder that is not there yet, whole or not at all.

    Args:
        folder: Where to.
        parameters: The tensor file.
        plan_text: The training plan.
        card: What ``model_card`` made.
        is_torch: Write a ``state_dict.pt`` as well.

    Raises:
        ExperimentArgumentError: Something is there already.
        FedWardError: The disk is full (DISK_FULL).
    """
    if folder.exists():
        raise ExperimentArgumentError(f"{folder} is there already.", remedy="Name a folder that is not there yet.")
    part = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        part.mkdir(parents=True)
        tensors = TensorFile(parameters)
        write_tensors(tensors, part / MODEL_FILE)
        if is_torch:
            _write_state_dict(tensors, part / STATE_FILE)
        (part / PLAN_FILE).write_text(plan_text)
        files = {path.name: file_sha256(path) for path in sorted(part.iterdir())}
        whole = {**card, "files_sha256": files}
        (part / CARD_FILE).write_text(json.dumps(whole, indent=2) + "\n")
        (part / CARD_TEXT).write_text(card_text(whole))
        part.rename(folder)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError) and takes_no_more(error):
            raise FedWardError(f"{folder}: {error.strerror}.", code=Code.DISK_FULL) from error
        raise
    return folder


def _write_state_dict(tensors: Mapping[str, Any], path: Path) -> None:
    import torch  # noqa: PLC0415 - seconds, and scikit-learn's models do without

    model = (name for name in tensors if not name.startswith(STANDARDISATION))
    torch.save({name: torch.from_numpy(tensors[name]) for name in model}, path)


def versions() -> dict[str, str]:
    """Of FedWard, of Python and of the libraries that compute."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def model_card(history: History, **facts: Any) -> dict[str, Any]:
    """All that is known of a model, as JSON values.

    Args:
        history: The closed rounds.
        facts: What the experiment says of itself.
    """
    last = history[-1] if history else None
    institutions = {reply.node_id: reply.institution for record in history for reply in record.replies}
    return {
        **facts,
        "rounds": len(history),
        "started_at": _day(history[0].started_at) if history else None,
        "ended_at": _day(last.started_at + last.seconds) if last else None,
        "seconds": round(sum(record.seconds for record in history), 1),
        "institutions": institutions,
        "samples": {reply.node_id: reply.sample_count for reply in last.replies} if last else {},
        "overrides": [
            {"node": reply.node_id, "round": record.round, **override.model_dump(mode="json")}
            for record in history
            for reply in record.replies
            for override in reply.overrides
        ],
        "metrics": {stage: last.metrics(stage) for stage in ("global", "local") if last.metrics(stage)} if last else {},
        "pooled": {stage: _pooled(last, stage) for stage in ("global", "local") if last.pooled(stage)} if last else {},
        "failures": [
            {"node": failure.node_id, "round": record.round, "code": failure.code}
            for record in history
            for failure in record.failures
        ],
        "versions": versions(),
    }


def _pooled(record: RoundRecord, stage: str) -> dict[str, Any]:
    return {name: asdict(found) for name, found in record.pooled(stage).items()}


def card_text(card: Mapping[str, Any]) -> str:
    """The card for people, as Markdown."""
    environment = jinja2.Environment(  # noqa: S701 - Markdown: what members wrote passes through ``cell``
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"cell": _cell}
    template = Path(__file__).with_name("model_card.md.j2").read_text()
    return environment.from_string(template).render(card)


def _cell(text: object) -> str:
    """A member's words, which must not end a table's cell."""
    return printable(str(text)).replace("|", "\\|")


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
