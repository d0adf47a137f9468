"""Members: who takes part in the consortium, and the six words by which two of them compare their registers."""

from __future__ import annotations

from flask import Blueprint, render_template
from flask_babel import lazy_gettext as _

from appliance.protocol.register import MemberState, Role
from appliance.protocol.words import six_words
from node_gui.context import member, register

blueprint = Blueprint("members", __name__, url_prefix="/members")
GROUPS = (
    (_("Researchers"), frozenset({Role.RESEARCHER})),
    (_("Hospitals"), frozenset({Role.NODE})),
    (_("Consortium's services"), frozenset({Role.NETWORK, Role.FEDERATOR, Role.OPERATOR})),
)
STATES = {
    MemberState.ACTIVE: (_("Takes part"), "good"),
    MemberState.SUSPENDED: (_("Suspended by the operator"), "danger"),
    MemberState.REVOKED: (_("Excluded"), "danger"),
}


@blueprint.get("/")
def page() -> str:
    """The register, checked against the pinned operator key."""
    found = register()
    groups = [(title, [m for m in found.members if m.role in roles]) for title, roles in GROUPS]
    return render_template(
        "members/page.html",
        register=found,
        groups=groups,
        states=STATES,
        me=member().id,
        words=six_words(found.digest()),
    )
