"""The node's rules: the consortium sets a floor, the site can only tighten it, and the tighter one holds.

A rule that nobody set has the release's value. Whoever is refused reads the rule's name and who set it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.jobs import SANDBOX_LEVELS
from appliance.protocol.messages import ArgumentRange, Override, Train
from appliance.protocol.sealing import sealed_size
from appliance.protocol.settings import read_settings
from appliance.protocol.wording import did_you_mean
from appliance.warden.store import Store, put_setting

_SETTING = "site_policy"


class PolicyRefusedError(FedWardError):
    """A rule of this node forbids what was asked."""

    code = Code.POLICY_REFUSED


class Rules(BaseModel):
    """One party's rules; None leaves a rule to others.

    Attributes:
        plan_approval: Whether only plans that staff approved may run.
        second_reviewer: Whether an approval counts only once two different people gave it. It is asked when an approval
            is given: those that were given before the rule stay.
        minimum_samples: Training records below which no round runs and no update leaves, after the split.
        pooled_counts: Which counts of tests may leave, to make one metric of all hospitals: sums and histograms, sums
            alone, or none.
        minimum_cell: Test records below which no bin of a histogram is told by itself, and no class at all.
        maximum_round_s: Seconds that a round's training may take.
        maximum_value: The largest size of a number in an update.
        maximum_update_bytes: The largest update that may leave, and the largest parameters or model that are taken.
        models: Which models that researchers send are kept for staff: none (``off``), those of experiments that this
            node answered a round of (``own``), or any (``all``).
        gpu: ``never``; ``offer`` it to who asks; ``force`` it on all.
        secagg: Whether secure aggregation may, or must, be used.
        sandbox: The least that must confine a plan, by name; see ``SANDBOX_LEVELS``.
        ranges: What values arguments may take, whatever a plan's approval says.
        overrides: Values that replace what a researcher asks, by dotted argument name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan_approval: Literal["required", "off"] | None = None
    second_reviewer: bool | None = None
    minimum_samples: int | None = Field(default=None, ge=1)
    pooled_counts: Literal["histograms", "sums", "off"] | None = None
    minimum_cell: int | None = Field(default=None, ge=1)
    maximum_round_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    maximum_value: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    maximum_update_bytes: int | None = Field(default=None, gt=0)
    models: Literal["off", "own", "all"] | None = None
    gpu: Literal["never", "offer", "force"] | None = None
    secagg: Literal["off", "allowed", "required"] | None = None
    sandbox: Literal["partial", "full", "isolated"] | None = None
    ranges: tuple[ArgumentRange, ...] = ()
    overrides: dict[str, JsonValue] = {}


RELEASE = Rules(
    plan_approval="required",
    second_reviewer=False,
    minimum_samples=20,
    pooled_counts="histograms",
    minimum_cell=5,
    maximum_round_s=3600,
    maximum_value=1e6,
    maximum_update_bytes=4 << 30,
    models="own",
    gpu="offer",
    secagg="allowed",
    sandbox="partial",
)

# How two parties' values of a rule become one. A rule that is no matter of strictness is the site's own.
_TIGHTER: dict[str, Callable[[Any, Any], Any]] = {
    "plan_approval": lambda a, b: "required" if "required" in (a, b) else "off",
    "second_reviewer": lambda a, b: a or b,
    "minimum_samples": max,
    "pooled_counts": lambda a, b: max(a, b, key=("histograms", "sums", "off").index),
    "minimum_cell": max,
    "maximum_round_s": min,
    "maximum_value": min,
    "maximum_update_bytes": min,
    "models": lambda a, b: min(a, b, key=("off", "own", "all").index),
    "gpu": lambda _consortium, site: site,
    "secagg": lambda a, b: max(a, b, key=("off", "allowed", "required").index),
    "sandbox": lambda a, b: max(a, b, key=list(SANDBOX_LEVELS).index),
}


@dataclass(frozen=True)
class Rule:
    """A rule in force.

    Attributes:
        set_by: ``release``, ``consortium`` or ``site``.
    """

    name: str
    value: Any
    set_by: str

    def __str__(self) -> str:
        return f"{self.name} = {self.value} (set by the {self.set_by})"


class Policy:
    """The effective rules of a node.

    Args:
        store: Holds the site's own rules.
        floor: The consortium's policy file (TOML); absent means that the consortium sets nothing.
    """

    def __init__(self, store: Store, floor: Path) -> None:
        self._store = store
        self._changing = threading.Lock()
        self._floor = read_floor(floor)
        self._site = Rules.model_validate_json(store.setting(_SETTING) or "{}")

    def rule(self, name: str) -> Rule:
        """The rule of that name in force."""
        floor, site = getattr(self._floor, name), getattr(self._site, name)
        if floor is None and site is None:
            return Rule(name, getattr(RELEASE, name), "release")
        if floor is None or site is None:
            return Rule(name, site if floor is None else floor, "site" if floor is None else "consortium")
        value = _TIGHTER[name](floor, site)
        return Rule(name, value, "consortium" if value == floor else "site")

    def rules(self) -> list[Rule]:
        """All rules in force: the single ones, then ranges and overrides."""
        single = [self.rule(name) for name in _TIGHTER]
        ranges = [Rule(f"ranges.{r.name}", describe(r), who) for r, who in self._ranges()]
        forced = [Rule(f"overrides.{name}", value, who) for name, (value, who) in self._overrides().items()]
        return single + ranges + forced

    def value(self, name: str) -> Any:
        """The value of the rule in force."""
        return self.rule(name).value

    def floor(self, name: str) -> Any:
        """What the consortium demands of a single rule at least; None when it leaves it to the site."""
        return getattr(self._floor, name) if name in _TIGHTER else None

    def own(self) -> dict[str, JsonValue]:
        """What the site itself has set, by rule."""
        own: dict[str, JsonValue] = self._site.model_dump(mode="json")
        return own

    def change(
        self,
        changes: Mapping[str, JsonValue],
        record: Callable[[sa.Connection], None],
        shown: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Put changes of the site's own rules into force, once they are committed.

        Args:
            changes: New values by rule; None takes the site's word back.
            record: Writes the audit line, in the same transaction.
            shown: By rule, what whoever decides saw: the value in force; of ranges and overrides the site's own.

        Raises:
            PolicyRefusedError: A rule is unknown, malformed, looser than the consortium's floor, or not as it was shown
                any more (DECISION_STALE).
        """
        with self._changing:
            self._require_shown(shown or {})
            site = self._after(changes)
            with self._store.write() as connection:
                put_setting(connection, _SETTING, site.model_dump_json(exclude_defaults=True))
                record(connection)
            self._site = site

    def _require_shown(self, shown: Mapping[str, JsonValue]) -> None:
        own = self.own()
        for name, seen in shown.items():
            if (self.value(name) if name in _TIGHTER else own.get(name)) != seen:
                raise PolicyRefusedError(
                    f"{name} is not as it was shown any more; nothing was changed.", code=Code.DECISION_STALE
                )

    def _after(self, changes: Mapping[str, JsonValue]) -> Rules:
        try:
            site = Rules.model_validate({**self._site.model_dump(mode="json"), **changes})
        except ValidationError as error:
            first = error.errors()[0]
            unknown = [name for name in changes if name not in Rules.model_fields]
            if unknown:
                hint = did_you_mean(unknown[0], Rules.model_fields)
                raise PolicyRefusedError(
                    f"There is no rule '{unknown[0]}'.{hint} The rules: {', '.join(Rules.model_fields)}.",
                    code=Code.ARGUMENT_INVALID,
                ) from error
            raise PolicyRefusedError(
                f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", code=Code.ARGUMENT_INVALID
            ) from error
        for name in set(changes) & set(_TIGHTER):
            floor, asked = getattr(self._floor, name), getattr(site, name)
            if floor is not None and asked is not None and _TIGHTER[name](floor, asked) != asked:
                raise PolicyRefusedError(
                    f"{name} = {asked} is looser than the consortium's {floor}; a site can only tighten.",
                    rule=f"{name} = {floor} (set by the consortium)",
                )
        return site

    # What a training request meets

    def override(self, asked: Mapping[str, JsonValue]) -> tuple[dict[str, JsonValue], tuple[Override, ...]]:
        """The training arguments after the node's overrides, and what was changed by which rule."""
        used = _copy(asked)
        changed = []
        for name, (value, who) in self._overrides().items():
            before = lookup(used, name)
            if before != value:
                _assign(used, name, value)
                rule = str(Rule(f"overrides.{name}", value, who))
                changed.append(Override(argument=name, asked=before, used=value, rule=rule))
        return used, tuple(changed)

    def require_ranges(self, arguments: Mapping[str, JsonValue], approved: Sequence[ArgumentRange]) -> None:
        """Raise PolicyRefusedError unless every ranged argument is stated and inside its range."""
        for allowed in approved:
            require_range(arguments, allowed, "the plan's approval")
        for allowed, who in self._ranges():
            require_range(arguments, allowed, f"the {who}'s policy")

    def require_terms(self, request: Train, rows: int) -> None:
        """Raise PolicyRefusedError when the request's terms are not this node's."""
        secagg = self.rule("secagg")
        if secagg.value == "required" or request.secagg is not None:
            raise PolicyRefusedError("This release has no secure aggregation yet.", rule=str(secagg))
        if request.privacy is not None:
            raise PolicyRefusedError("This release has no differential privacy yet.")
        if request.deadline is not None and request.deadline < time.time():
            raise PolicyRefusedError("The round's deadline has passed.", code=Code.ROUND_TIMEOUT)
        largest = self.rule("maximum_update_bytes")
        size = request.parameters.size_bytes + (request.frozen.size_bytes if request.frozen else 0)
        if size > sealed_size(largest.value):
            raise PolicyRefusedError("The parameters are larger than this node takes.", rule=str(largest))
        # Held-out records do not count; how many there were in the end is looked at again after training.
        folds = request.training_args.get("folds")
        test_ratio = 1 / folds if type(folds) is int and folds > 1 else request.training_args.get("test_ratio", 0)
        if not (request.train and isinstance(test_ratio, int | float) and 0 <= test_ratio <= 1):
            test_ratio = 0
        self.require_samples(rows - math.floor(rows * test_ratio))

    def require_samples(self, samples: int) -> None:
        """Raise PolicyRefusedError when so few records must not be trained on."""
        minimum = self.rule("minimum_samples")
        if samples < minimum.value:
            raise PolicyRefusedError(
                f"Too few training records; this node's minimum is {minimum.value}.",
                code=Code.TOO_FEW_SAMPLES,
                rule=str(minimum),
            )

    def use_gpu(self, asked: JsonValue) -> bool:
        """Whether a round that asks so shall have the GPU."""
        gpu = self.value("gpu")
        return gpu == "force" or (gpu == "offer" and asked is True)

    def _ranges(self) -> list[tuple[ArgumentRange, str]]:
        return [(r, "consortium") for r in self._floor.ranges] + [(r, "site") for r in self._site.ranges]

    def _overrides(self) -> dict[str, tuple[JsonValue, str]]:
        # The consortium's last, so that no name of the site's inside one of them has the last word.
        floor, site = self._floor.overrides, self._site.overrides
        mine = {name: (value, "site") for name, value in site.items() if name not in floor}
        return mine | {name: (value, "consortium") for name, value in floor.items()}


def read_floor(path: Path) -> Rules:
    """The consortium's policy file; raises ConfigurationError naming file and rule."""
    return read_settings(path, Rules, is_required=False)


def require_range(arguments: Mapping[str, JsonValue], allowed: ArgumentRange, set_by: str) -> None:
    """Raise PolicyRefusedError unless the argument is stated and inside the range."""
    value = lookup(arguments, allowed.name)
    rule = f"{describe(allowed)} (set by {set_by})"
    if value is None:
        raise PolicyRefusedError(
            f"The argument '{allowed.name}' must be stated: it has a range.", code=Code.ARGUMENT_OUT_OF_RANGE, rule=rule
        )
    if not is_inside(value, allowed):
        raise PolicyRefusedError(
            f"The argument '{allowed.name}' is outside its range.", code=Code.ARGUMENT_OUT_OF_RANGE, rule=rule
        )


def describe(allowed: ArgumentRange) -> str:
    """A range as people read it."""
    if allowed.allowed is not None:
        return f"{allowed.name} one of {list(allowed.allowed)}"
    low = "" if allowed.minimum is None else f"{allowed.minimum:g} <= "
    high = "" if allowed.maximum is None else f" <= {allowed.maximum:g}"
    return f"{low}{allowed.name}{high}"


def lookup(arguments: Mapping[str, JsonValue], name: str) -> JsonValue:
    """The value of a dotted argument, or None when it is not there."""
    value: Any = arguments
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    result: JsonValue = value
    return result


def is_inside(value: JsonValue, allowed: ArgumentRange) -> bool:
    """Whether a range allows a value; None, for an argument that is not stated, is in no range."""
    if allowed.allowed is not None and not any(type(value) is type(a) and value == a for a in allowed.allowed):
        return False
    if allowed.minimum is None and allowed.maximum is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    low = -float("inf") if allowed.minimum is None else allowed.minimum
    high = float("inf") if allowed.maximum is None else allowed.maximum
    return low <= value <= high


def _assign(arguments: dict[str, Any], name: str, value: JsonValue) -> None:
    *parents, last = name.split(".")
    for part in parents:
        if not isinstance(arguments.get(part), dict):  # whatever a researcher put there instead
            arguments[part] = {}
        arguments = arguments[part]
    arguments[last] = _copy(value)


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value
