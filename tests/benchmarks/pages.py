"""The addresses of all pages that a GET shows, over what ``tests.years`` fills a store with."""

from __future__ import annotations

from tests.years import Size, plan_hash

# Those that show no records of the years, by their endpoints.
OTHERS = {
    "datasets.browse": "/datasets/browse",
    "datasets.look": "/datasets/look?path=ward-1.csv",
    "account.page": "/account/",
    "account.second_factor": "/account/second-factor",
    "members.page": "/members/",
    "privacy.page": "/privacy/",
    "policy.page": "/policy/",
    "policy.arguments": "/policy/arguments",
    "policy.rule": "/policy/minimum_samples",
    "notices.page": "/notices/",
    "health.page": "/health/",
    "health.live": "/health/live",
    "users.page": "/users/",
    "users.account": "/users/1",
}


def addresses(size: Size) -> list[tuple[str, str]]:
    """Endpoint and address of every page."""
    found = [(endpoint, path) for endpoint, paths in of_records(size).items() for path in paths]
    return found + list(OTHERS.items())


def of_records(size: Size) -> dict[str, list[str]]:
    """For each endpoint that shows records of the years: first and later pages, searches and filters."""
    last, long = f"e-{size.experiments - 1:05}", "e-00000"
    plan, middle = plan_hash(size.plans // 2), size.lines // 2
    period = "since=2021-01-01&until=2022-12-31"
    return {
        "home.page": ["/"],
        "home.live": ["/live"],
        "plans.page": ["/plans/", "/plans/?page=9", "/plans/?search=plan+7", "/plans/?state=pending"],
        "plans.plan": [f"/plans/{plan}"],
        "plans.changes": [f"/plans/{plan}/changes"],
        "datasets.page": ["/datasets/", "/datasets/?page=3", "/datasets/?search=scan", "/datasets/?state=suspended"],
        "datasets.dataset": ["/datasets/d7"],
        "datasets.removal": ["/datasets/d7/remove"],
        "experiments.page": [
            "/experiments/",
            f"/experiments/?before={size.rounds // 2}",
            f"/experiments/?search={last[:5]}",
            "/experiments/?search=researcher-3",
            "/experiments/?search=nobody",
        ],
        "experiments.live": ["/experiments/live"],
        "experiments.experiment": [f"/experiments/{last}", f"/experiments/{long}"],
        "experiments.experiment_live": [f"/experiments/{last}/live", f"/experiments/{long}/live"],
        "models.page": ["/models/"],
        "models.model": ["/models/m7"],
        "models.removal": ["/models/m7/remove"],
        "egress.page": [
            "/what-left/",
            f"/what-left/?before={size.rounds}",
            "/what-left/?what=all",
            f"/what-left/?what=all&before={size.rounds}",
            f"/what-left/?experiment={long}",
            f"/what-left/?experiment={long}&what=all",
            "/what-left/?recipient=researcher-3",
            f"/what-left/?{period}",
            f"/what-left/?what=all&{period}",
            "/what-left/?since=1990-01-01&until=2100-01-01",
        ],
        "audit.page": [
            "/audit/",
            f"/audit/?before={middle}",
            "/audit/?search=researcher-3",
            "/audit/?search=nothing+like+this",
            f"/audit/?subject={long}",
            f"/audit/?subject={long}&search=nothing+like+this",
            f"/audit/?{period}",
            f"/audit/?search=nothing+like+this&{period}",
        ],
    }
