"""``/metrics``: the network host in numbers, in the text format of Prometheus (exposition format 0.0.4).

They come from the database alone, so that each worker gives the same. Who may see them: the operator and the network
host itself with their tokens, and whoever holds the scrape token in ``metrics.token``, which opens nothing else.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import Count, Sum
from django.http import HttpResponse
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from appliance.network.audit.models import AuditHead
from appliance.network.jobs.models import Job, JobState
from appliance.network.members.authentication import BearerAuthentication
from appliance.network.members.permissions import IsMember
from appliance.network.members.selectors import register_current
from appliance.network.parameters.models import Upload
from appliance.network.presence.selectors import member_presences
from appliance.network.schema import ERRORS
from appliance.protocol.keys import require_secret
from appliance.protocol.register import Role

TOKEN_FILE = "metrics.token"  # noqa: S105 - a file's name
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LEAST_TOKEN = 32  # characters: 'openssl rand -hex 32' writes 64


@dataclass(frozen=True)
class Metric:
    """A number, or one for each label's value."""

    name: str
    kind: str  # gauge or counter
    help: str
    samples: tuple[tuple[dict[str, str], float], ...]

    def lines(self) -> Iterator[str]:
        """As Prometheus reads it."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            yield f"{self.name}{{{inside}}} {value:.17g}" if inside else f"{self.name} {value:.17g}"


def metrics_text() -> str:
    """All of them."""
    return "".join(f"{line}\n" for metric in _metrics() for line in metric.lines())


def _metrics() -> Iterable[Metric]:
    members = member_presences()
    heard = [(member, each) for member, each in members if each]
    stated = [(member, each) for member, each in heard if each.stated_at]
    jobs = dict(Job.objects.values_list("state").annotate(Count("id")))
    uploads = Upload.objects.aggregate(count=Count("id"), length=Sum("length"), stored=Sum("offset"))

    def by_member(pairs: Iterable[tuple[str, float | None]]) -> tuple[tuple[dict[str, str], float], ...]:
        return tuple(({"member": name}, value) for name, value in pairs if value is not None)

    return [
        Metric("fedward_register_version", "gauge", "Version of the membership register.",
               (({}, register_current().version),)),
        Metric("fedward_member_info", "gauge", "1 for each member of the register.",
               tuple(({"member": m.id, "role": m.role, "state": m.state, "version": p.version if p else ""}, 1)
                     for m, p in members)),
        Metric("fedward_member_last_seen_seconds", "gauge", "When a member last called, since the epoch.",
               by_member((m.id, p.seen_at.timestamp()) for m, p in heard)),
        Metric("fedward_member_disk_free_bytes", "gauge", "As the member said last.",
               by_member((m.id, p.disk_free_bytes) for m, p in stated)),
        Metric("fedward_member_disk_total_bytes", "gauge", "As the member said last.",
               by_member((m.id, p.disk_total_bytes) for m, p in stated)),
        Metric("fedward_member_certificate_end_seconds", "gauge", "When its certificate ends, since the epoch.",
               by_member((m.id, p.certificate_until.timestamp()) for m, p in stated if p.certificate_until)),
        Metric("fedward_member_running_rounds", "gauge", "Rounds that train at the member, as it said last.",
               by_member((m.id, p.running_rounds) for m, p in stated)),
        Metric("fedward_jobs", "gauge", "Jobs of the queue, by state.",
               tuple(({"state": state}, jobs.get(state, 0)) for state in JobState.values)),
        Metric("fedward_uploads", "gauge", "Uploads that are kept.", (({}, uploads["count"]),)),
        Metric("fedward_uploads_announced_bytes", "gauge", "Their length as announced.",
               (({}, uploads["length"] or 0),)),
        Metric("fedward_uploads_stored_bytes", "gauge", "What of them is on the disk.",
               (({}, uploads["stored"] or 0),)),
        Metric("fedward_audit_lines_total", "counter", "Lines of the audit log: requests, transfers and jobs.",
               (({}, AuditHead.objects.get(id=1).n),)),
    ]  # fmt: skip


class Scraper:
    """Whoever holds the scrape token: no member, and no name."""


class OverseerAuthentication(BearerAuthentication):
    """A member's token, or the text of HOME/metrics.token; without that file there is no scrape token."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        """The scraper, or whoever ``BearerAuthentication`` finds; raises as it does, and for an unsafe file."""
        path: Path = settings.FEDWARD_HOME / TOKEN_FILE
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer" and path.exists():
            expected = require_secret(path).strip()
            if len(expected) >= _LEAST_TOKEN and hmac.compare_digest(token.strip().encode(), expected):
                return Scraper(), None
        return super().authenticate(request)


class OverseerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes the token in the OpenAPI schema."""

    target_class = "appliance.network.metrics.OverseerAuthentication"
    name = "overseerToken"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:  # noqa: ARG002 - the base's signature
        """OpenAPI's words for it."""
        return {"type": "http", "scheme": "bearer", "bearerFormat": "A JWS, or the text of metrics.token"}


class IsOverseer(IsMember):
    """Those who look after the network host."""

    message = "Only the operator and the network host may do this."
    roles = frozenset({Role.OPERATOR, Role.NETWORK})


class IsScraper(BasePermission):
    """Whoever holds the scrape token."""

    message = IsOverseer.message

    def has_permission(self, request: Request, view: APIView) -> bool:  # noqa: ARG002 - the base's signature
        """Whether the scrape token was shown."""
        return isinstance(request.user, Scraper)


class MetricsView(APIView):
    """The network host in numbers, for Prometheus."""

    authentication_classes = (OverseerAuthentication,)
    permission_classes = (IsScraper | IsOverseer,)

    @extend_schema(responses={(200, "text/plain"): OpenApiResponse(OpenApiTypes.STR, "Prometheus' text."), **ERRORS})
    def get(self, request: Request) -> HttpResponse:  # noqa: ARG002 - the framework's signature
        """Members, jobs, uploads and requests."""
        return HttpResponse(metrics_text(), content_type=CONTENT_TYPE)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
