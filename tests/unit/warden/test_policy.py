"""The rules: the tighter one wins, and no form of a number slips past a range."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from appliance.protocol.errors import Code, ConfigurationError, FedWardError
from appliance.protocol.messages import ArgumentRange, PrivacyTerms, SecAggTerms
from appliance.protocol.sealing import sealed_size
from appliance.warden.policy import Policy, PolicyRefusedError, lookup, require_range
from appliance.warden.store import Store
from tests.unit.warden.conftest import Node


@pytest.fixture
def floor(tmp_path: Path) -> Path:
    """Where the consortium's policy lies."""
    return tmp_path / "floor.toml"


def policy(node: Node, floor: Path, text: str = "", **site: Any) -> Policy:
    """The rules under a consortium's ``text`` and a site's own."""
    floor.write_text(text)
    made = Policy(node.store, floor)
    if site:
        made.change(site, lambda _connection: None)
    return made


def is_refused(arguments: dict[str, Any], allowed: ArgumentRange) -> bool:
    """Whether arguments break a range."""
    try:
        require_range(arguments, allowed, "the plan's approval")
    except PolicyRefusedError:
        return True
    return False


def test_without_anybodys_word_the_releases_rules_hold_and_are_safe(node: Node, floor: Path) -> None:
    """A site that sets nothing must not be open."""
    rules = policy(node, floor)
    assert str(rules.rule("plan_approval")) == "plan_approval = required (set by the release)"
    assert rules.value("minimum_samples") >= 20


@pytest.mark.parametrize(
    ("name", "consortium", "site", "in_force", "who"),
    [
        ("minimum_samples", "50", 80, 80, "site"),
        ("minimum_samples", "50", 50, 50, "consortium"),
        ("maximum_round_s", "600", 60.0, 60.0, "site"),
        ("maximum_value", "100.0", 10.0, 10.0, "site"),
        ("maximum_update_bytes", "1000", 500, 500, "site"),
        ("plan_approval", '"off"', "required", "required", "site"),
        ("secagg", '"allowed"', "required", "required", "site"),
        ("sandbox", '"partial"', "full", "full", "site"),
        ("sandbox", '"full"', "isolated", "isolated", "site"),
    ],
)
def test_the_tighter_rule_wins_and_says_who_set_it(
    node: Node, floor: Path, name: str, consortium: str, site: Any, in_force: Any, who: str
) -> None:
    """Whoever is refused must know whom to ask."""
    rule = policy(node, floor, f"{name} = {consortium}", **{name: site}).rule(name)
    assert (rule.value, rule.set_by) == (in_force, who)


@pytest.mark.parametrize(
    ("name", "consortium", "looser"),
    [
        ("minimum_samples", "50", 49),
        ("maximum_round_s", "600", 601.0),
        ("maximum_value", "100.0", 101.0),
        ("maximum_update_bytes", "1000", 1001),
        ("plan_approval", '"required"', "off"),
        ("secagg", '"required"', "allowed"),
        ("sandbox", '"full"', "partial"),
        ("sandbox", '"isolated"', "full"),
    ],
)
def test_a_site_cannot_loosen_what_the_consortium_set(
    node: Node, floor: Path, name: str, consortium: str, looser: Any
) -> None:
    """The floor holds whatever a site's staff type."""
    rules = policy(node, floor, f"{name} = {consortium}")
    before = rules.rule(name)
    with pytest.raises(PolicyRefusedError, match="a site can only tighten") as refusal:
        rules.change({name: looser}, lambda _connection: None)
    assert refusal.value.rule is not None
    assert rules.rule(name) == before
    assert Policy(node.store, floor).rule(name) == before


def test_a_floor_that_is_raised_later_holds_over_what_the_site_had(node: Node, floor: Path) -> None:
    """The site's old word does not outlive the consortium's new one."""
    policy(node, floor, minimum_samples=30)
    assert policy(node, floor, "minimum_samples = 100").value("minimum_samples") == 100


def test_a_site_may_take_its_word_back(node: Node, floor: Path) -> None:
    """What then holds is the consortium's rule, or the release's."""
    rules = policy(node, floor, "minimum_samples = 50", minimum_samples=80)
    rules.change({"minimum_samples": None}, lambda _connection: None)
    assert rules.rule("minimum_samples").set_by == "consortium"


@pytest.mark.parametrize(
    "change",
    [
        {"minimum_smaples": 5},
        {"minimum_samples": 0},
        {"minimum_samples": "many"},
        {"maximum_value": math.inf},
        {"maximum_value": math.nan},
        {"maximum_round_s": -1},
        {"gpu": "perhaps"},
        {"ranges": [{"name": "epochs"}]},
        {"ranges": [{"name": "epochs", "minimum": 5, "maximum": 1}]},
        {"overrides": ["batch_size"]},
    ],
)
def test_a_malformed_rule_is_refused_by_its_name(node: Node, floor: Path, change: dict[str, Any]) -> None:
    """A typing error must not silently leave a node without the rule."""
    with pytest.raises(PolicyRefusedError) as refusal:
        policy(node, floor, **change)
    assert refusal.value.code is Code.ARGUMENT_INVALID
    assert next(iter(change)) in refusal.value.message


def test_a_change_holds_after_a_restart(node: Node, floor: Path) -> None:
    """The rule is in the store, not in the process."""
    policy(node, floor, minimum_samples=77, ranges=[{"name": "epochs", "maximum": 3}], overrides={"epochs": 2})
    again = Policy(node.store, floor)
    assert [(r.name, r.value) for r in again.rules() if r.set_by == "site"] == [
        ("minimum_samples", 77),
        ("ranges.epochs", "epochs <= 3"),
        ("overrides.epochs", 2),
    ]


def test_a_change_that_is_not_committed_is_not_in_force(node: Node, floor: Path) -> None:
    """A full disk must not leave another rule in memory than in the store."""
    rules = policy(node, floor)

    def fail(_connection: sa.Connection) -> None:
        raise FedWardError("full", code=Code.DISK_FULL)

    with pytest.raises(FedWardError):
        rules.change({"minimum_samples": 99}, fail)
    assert rules.value("minimum_samples") == Policy(node.store, floor).value("minimum_samples") == 20


@pytest.mark.parametrize("text", ["minimum_samples = ", "minimum_smaples = 5", "minimum_samples = -5"])
def test_a_consortium_policy_that_cannot_be_read_stops_the_start(node: Node, floor: Path, text: str) -> None:
    """A node without its floor must not run."""
    with pytest.raises(ConfigurationError, match=r"floor\.toml"):
        policy(node, floor, text)


# Ranges

EPOCHS = ArgumentRange(name="epochs", minimum=1, maximum=5)
RATE = ArgumentRange(name="optimizer_args.lr", maximum=0.1)
WORD = ArgumentRange(name="model_args.norm", allowed=("batch", 1, True))


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ({"epochs": 1}, EPOCHS),
        ({"epochs": 5}, EPOCHS),
        ({"epochs": 2.5}, EPOCHS),
        ({"optimizer_args": {"lr": 0.1}}, RATE),
        ({"optimizer_args": {"lr": -5}}, RATE),
        ({"model_args": {"norm": "batch"}}, WORD),
        ({"model_args": {"norm": 1}}, WORD),
    ],
)
def test_a_value_inside_its_range_passes(arguments: dict[str, Any], allowed: ArgumentRange) -> None:
    """Both ends belong to the range."""
    assert not is_refused(arguments, allowed)


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ({"epochs": 0}, EPOCHS),
        ({"epochs": 6}, EPOCHS),
        ({"epochs": 10**400}, EPOCHS),
        ({"epochs": math.nan}, EPOCHS),
        ({"epochs": math.inf}, EPOCHS),
        ({"epochs": True}, EPOCHS),
        ({"epochs": "3"}, EPOCHS),
        ({"epochs": [3]}, EPOCHS),
        ({"epochs": {"of": 3}}, EPOCHS),
        ({"epochs": None}, EPOCHS),
        ({}, EPOCHS),
        ({"num_updates": 3}, EPOCHS),
        ({"optimizer_args": {"lr": 0.2}}, RATE),
        ({"optimizer_args": 0.05}, RATE),
        ({"optimizer_args": [{"lr": 0.05}]}, RATE),
        ({"optimizer_args": {}}, RATE),
        ({"optimizer_args.lr": 0.05}, RATE),
        ({"model_args": {"norm": "layer"}}, WORD),
        ({"model_args": {"norm": 1.0}}, WORD),
        ({"model_args": {"norm": ["batch"]}}, WORD),
        ({}, WORD),
    ],
)
def test_what_is_outside_of_another_type_or_missing_is_refused_with_its_name(
    arguments: dict[str, Any], allowed: ArgumentRange
) -> None:
    """Left out means the plan's own default, which nobody approved."""
    with pytest.raises(PolicyRefusedError) as refusal:
        require_range(arguments, allowed, "the plan's approval")
    assert refusal.value.code is Code.ARGUMENT_OUT_OF_RANGE
    assert allowed.name in refusal.value.message
    assert "the plan's approval" in (refusal.value.rule or "")


def test_ranges_of_approval_consortium_and_site_hold_together(node: Node, floor: Path) -> None:
    """None of them replaces another."""
    text = 'ranges = [{name = "epochs", maximum = 4}]'
    rules = policy(node, floor, text, ranges=[{"name": "epochs", "minimum": 2}])
    rules.require_ranges({"epochs": 3}, [ArgumentRange(name="epochs", maximum=3)])
    for epochs, who in ((4, "approval"), (5, "approval"), (1, "site's policy")):
        with pytest.raises(PolicyRefusedError) as refusal:
            rules.require_ranges({"epochs": epochs}, [ArgumentRange(name="epochs", maximum=3)])
        assert who in (refusal.value.rule or "")
    with pytest.raises(PolicyRefusedError) as refusal:
        rules.require_ranges({"epochs": 5}, [])
    assert "consortium" in (refusal.value.rule or "")


# Overrides


def test_an_override_replaces_the_argument_and_says_so(node: Node, floor: Path) -> None:
    """The researcher must be able to tell the paper what was really run."""
    rules = policy(node, floor, overrides={"batch_size": 16, "optimizer_args.lr": 0.01})
    asked = {"batch_size": 8, "optimizer_args": {"lr": 0.5, "momentum": 0.9}}
    used, changed = rules.override(asked)
    assert used == {"batch_size": 16, "optimizer_args": {"lr": 0.01, "momentum": 0.9}}
    assert [(o.argument, o.asked, o.used) for o in changed] == [("batch_size", 8, 16), ("optimizer_args.lr", 0.5, 0.01)]
    assert all("set by the site" in o.rule for o in changed)
    assert asked["optimizer_args"] == {"lr": 0.5, "momentum": 0.9}


def test_an_argument_that_is_as_the_node_wants_it_is_not_reported(node: Node, floor: Path) -> None:
    """A report of nothing would hide the others."""
    assert policy(node, floor, overrides={"epochs": 2}).override({"epochs": 2}) == ({"epochs": 2}, ())


@pytest.mark.parametrize("hostile", [5, "text", [1, 2], None, True])
def test_an_override_inside_what_a_researcher_made_something_else_still_holds(
    node: Node, floor: Path, hostile: Any
) -> None:
    """Whatever is sent, it ends neither the rule nor the warden."""
    used, changed = policy(node, floor, overrides={"optimizer_args.lr": 0.01}).override({"optimizer_args": hostile})
    assert lookup(used, "optimizer_args.lr") == 0.01
    assert changed[0].asked is None


def test_the_consortiums_override_has_the_last_word_also_inside_a_larger_one(node: Node, floor: Path) -> None:
    """A site must not reach into what the consortium set."""
    text = "[overrides]\noptimizer_args = {lr = 0.01}"
    rules = policy(node, floor, text, overrides={"optimizer_args": {"lr": 9}, "optimizer_args.lr": 9})
    assert lookup(rules.override({})[0], "optimizer_args.lr") == 0.01


def test_two_rounds_do_not_share_an_overrides_value(node: Node, floor: Path) -> None:
    """What one round's arguments become must not become the rule."""
    rules = policy(node, floor, overrides={"optimizer_args": {"lr": 0.01}})
    rules.override({})[0]["optimizer_args"]["lr"] = 9  # type: ignore[index, call-overload]
    assert lookup(rules.override({})[0], "optimizer_args.lr") == 0.01


# Terms


@pytest.mark.parametrize(
    ("rows", "test_ratio", "is_enough"),
    [(20, 0, True), (19, 0, False), (25, 0.2, True), (24, 0.2, True), (23, 0.2, False), (1000, 1, False)],
)
def test_held_out_records_do_not_count_towards_the_minimum(
    node: Node, floor: Path, rows: int, test_ratio: float, is_enough: bool
) -> None:
    """The rule is about records that are trained on."""
    request = node.train("d", training_args={"test_ratio": test_ratio})
    rules = policy(node, floor)
    if is_enough:
        rules.require_terms(request, rows)
    else:
        with pytest.raises(PolicyRefusedError) as refusal:
            rules.require_terms(request, rows)
        assert refusal.value.code is Code.TOO_FEW_SAMPLES


@pytest.mark.parametrize(("rows", "is_enough"), [(25, True), (23, False)])
def test_a_fold_that_is_held_out_does_not_count_either(node: Node, floor: Path, rows: int, is_enough: bool) -> None:
    """Cross-validation holds out as a test_ratio does."""
    request = node.train("d", training_args={"folds": 5, "fold": 4})
    with nullcontext() if is_enough else pytest.raises(PolicyRefusedError):
        policy(node, floor).require_terms(request, rows)


@pytest.mark.parametrize("test_ratio", [-1, 2, math.nan, "0.5", None, [], 10**400])
def test_a_test_ratio_that_is_none_neither_helps_nor_ends_the_warden(node: Node, floor: Path, test_ratio: Any) -> None:
    """The runner refuses it by its name; here it only must not count: the minimum is what it is without."""
    request = node.train("d", training_args={}).model_copy(update={"training_args": {"test_ratio": test_ratio}})
    policy(node, floor).require_terms(request, 20)
    with pytest.raises(PolicyRefusedError):
        policy(node, floor).require_terms(request, 19)


def test_a_test_of_the_global_parameters_needs_the_minimum_too(node: Node, floor: Path) -> None:
    """A metric over three records tells of each of them."""
    with pytest.raises(PolicyRefusedError):
        policy(node, floor).require_terms(node.train("d", train=False), 19)


def test_parameters_larger_than_an_update_may_be_are_not_fetched(node: Node, floor: Path) -> None:
    """They would fill the node's disk and memory before anybody looked."""
    rules = policy(node, floor, maximum_update_bytes=10_000)
    request = node.train("d")
    small = request.parameters.model_copy(update={"size_bytes": sealed_size(10_000)})
    large = request.parameters.model_copy(update={"size_bytes": sealed_size(10_000) + 1})
    rules.require_terms(request.model_copy(update={"parameters": small}), 100)
    with pytest.raises(PolicyRefusedError, match="larger"):
        rules.require_terms(request.model_copy(update={"parameters": large}), 100)


@pytest.mark.parametrize(
    "terms",
    [
        {"secagg": SecAggTerms(scheme="masking", min_nodes=3)},
        {"privacy": PrivacyTerms(guarantee="record", epsilon=1.0, delta=1e-5)},
        {"deadline": 1},
    ],
)
def test_terms_that_this_release_cannot_keep_are_refused(node: Node, floor: Path, terms: dict[str, Any]) -> None:
    """A promise of protection that is not kept is worse than none."""
    with pytest.raises(PolicyRefusedError):
        policy(node, floor).require_terms(node.train("d", **terms), 100)


def test_a_node_that_requires_secure_aggregation_gives_nothing_without_it(node: Node, floor: Path) -> None:
    """``required`` means that no single update leaves, also before this release can do better."""
    with pytest.raises(PolicyRefusedError) as refusal:
        policy(node, floor, secagg="required").require_terms(node.train("d"), 100)
    assert "secagg = required" in (refusal.value.rule or "")


@pytest.mark.parametrize(
    ("rule", "asked", "used"),
    [
        ("never", True, False),
        ("offer", True, True),
        ("offer", False, False),
        ("offer", None, False),
        ("offer", "yes", False),
        ("force", False, True),
    ],
)
def test_the_gpu_is_given_as_the_site_says(node: Node, floor: Path, rule: str, asked: Any, used: bool) -> None:
    """It is the hospital's machine."""
    assert policy(node, floor, gpu=rule).use_gpu(asked) is used


def test_two_people_who_change_different_rules_lose_neither(tmp_path: Path, node: Node, floor: Path) -> None:
    """The second change starts from the first."""
    rules = policy(node, floor)
    rules.change({"minimum_samples": 30}, lambda _connection: None)
    rules.change({"maximum_round_s": 60}, lambda _connection: None)
    node.store.close()
    store = Store(tmp_path / "store")
    again = Policy(store, floor)
    store.close()
    assert (again.value("minimum_samples"), again.value("maximum_round_s")) == (30, 60)


def test_a_list_of_allowed_values_can_be_written_in_each_place(node: Node, floor: Path) -> None:
    """In the consortium's file, by the site, and read again from the store."""
    text = '[[ranges]]\nname = "optimizer"\nallowed = ["sgd", "adam"]'
    policy(node, floor, text, ranges=[{"name": "epochs", "allowed": [1, 2]}])
    again = Policy(node.store, floor)
    again.change({"minimum_samples": 30}, lambda _connection: None)
    again.require_ranges({"optimizer": "adam", "epochs": 2}, [])
    for arguments in ({"optimizer": "lbfgs", "epochs": 2}, {"optimizer": "adam", "epochs": 3}):
        with pytest.raises(PolicyRefusedError):
            again.require_ranges(arguments, [])
