"""A notice as it is sent: one kind, one sentence for each occasion, and where to go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flask_babel import gettext as _
from flask_babel import ngettext

from appliance.protocol.errors import FedWardError
from node_gui.context import member, parts, register
from node_gui.notices.occasions import named
from node_gui.notices.settings import Kind

SHOWN = 20


@dataclass(frozen=True)
class Item:
    """One occasion.

    Attributes:
        id: Tells it from others: the same in every notice of it.
        address: The page where it is dealt with.
    """

    id: str
    text: str
    address: str


@dataclass(frozen=True)
class Letter:
    """A notice.

    Attributes:
        node: The node's member id.
        hospital: Its name in the register.
        kind: A ``Kind``, or ``test``.
        more: How many occasions are not among the items.
        address: Where the GUI opens.
    """

    node: str
    hospital: str
    kind: str
    title: str
    items: tuple[Item, ...]
    more: int
    address: str

    @property
    def subject(self) -> str:
        """One line."""
        return f"FedWard {self.node}: {self.title}"

    def text(self) -> str:
        """For people."""
        lines = [
            _("Hospital: %(hospital)s (node %(node)s)", hospital=self.hospital, node=self.node),
            "",
            self.title,
            "",
        ]
        for item in self.items:
            lines += [f"- {item.text}", f"  {item.address}"]
        if self.more:
            lines += ["", ngettext("%(num)s more is not listed here.", "%(num)s more are not listed here.", self.more)]
        lines += [
            "",
            _("The node's GUI: %(address)s", address=self.address),
            _("FedWard sent this by itself. An administrator of the node chooses under Notices who gets it."),
        ]
        return "\n".join(lines) + "\n"


def write_letter(kind: Kind, items: Sequence[Item], address: str) -> Letter:
    """A notice of a kind, in the language that is chosen where this is called."""
    node, hospital = _hospital()
    return Letter(
        node, hospital, kind.value, _title(kind, len(items)), tuple(items[:SHOWN]), len(items[SHOWN:]), address
    )


def write_test(address: str) -> Letter:
    """A notice that says that notices arrive."""
    node, hospital = _hospital()
    return Letter(node, hospital, "test", _("This is a test: notices of this node arrive here"), (), 0, address)


def _title(kind: Kind, count: int) -> str:
    if kind is Kind.PLANS:
        title = ngettext("%(num)s training plan waits for review", "%(num)s training plans wait for review", count)
    elif kind is Kind.FAILURES:
        title = ngettext("%(num)s round failed", "%(num)s rounds failed", count)
    elif kind is Kind.ALERTS:
        title = ngettext("%(num)s alert", "%(num)s alerts", count)
    elif kind is Kind.ENDINGS:
        title = ngettext(
            "%(num)s approval, permission or certificate ends",
            "%(num)s approvals, permissions or certificates end",
            count,
        )
    elif kind is Kind.APPROVAL_OFF:
        title = _("Plan approval is off")
    else:
        title = _("The node does not answer")
    return str(title)


def _hospital() -> tuple[str, str]:
    """The node's id, and the hospital's name as the operator signed it."""
    try:
        node = member().id
        return node, named(register().require(node).institution)
    except FedWardError:
        return parts().home.name, _("not enrolled yet")
