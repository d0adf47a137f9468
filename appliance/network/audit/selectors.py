"""Reads of the audit log, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.network.audit.models import AuditHead, AuditLine
from appliance.protocol import chain

_PAGE = 1000


def head_show() -> AuditHead:
    """The last line's number and hash; whoever notes them elsewhere can tell a log that was written anew."""
    return AuditHead.objects.get(id=1)


def line_stream(*, up_to: int | None = None) -> Iterator[chain.Line]:
    """The lines in order, up to the one of that number."""
    after = 0
    while True:
        page = AuditLine.objects.filter(n__gt=after).order_by("n")
        page = page if up_to is None else page.filter(n__lte=up_to)
        rows = list(page.values_list("n", "text", "hash")[:_PAGE])
        for _, text, hash_ in rows:
            yield chain.Line(text, hash_)
        if len(rows) < _PAGE:
            return
        after = rows[-1][0]


def log_verify() -> chain.Verdict:
    """Walk the whole log as it stands now; a log that ends before its head lacks its next line."""
    head = head_show()
    verdict = chain.verify(line_stream(up_to=head.n))
    if verdict.is_whole and (verdict.lines, verdict.head) != (head.n, head.hash):
        return chain.Verdict(verdict.lines, verdict.head, verdict.lines + 1, "the log ends before its head")
    return verdict
