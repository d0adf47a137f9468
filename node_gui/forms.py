"""What people typed, as values; and the pages of a list."""

from __future__ import annotations

from datetime import datetime, timedelta

from flask import request, url_for
from flask_babel import gettext

from appliance.protocol.errors import Code
from appliance.warden.history import PAGE, Page, Stretch
from node_gui.errors import GuiError

LARGEST_NUMBER = (1 << 63) - 1  # that a store can count
_LAST_PAGE = 100_000
_FILTERS = frozenset({"search", "state", "experiment", "recipient", "since", "until", "what"})


def invalid(message: str, remedy: str) -> GuiError:
    """A field that cannot be used as it is; nothing was changed."""
    return GuiError(message, code=Code.ARGUMENT_INVALID, remedy=remedy)


def text(name: str) -> str:
    """A field without the blanks around it; empty when it was not sent."""
    return request.form.get(name, "").replace("\r\n", "\n").strip()


def revision() -> int:
    """The revision of what the person saw when he decided.

    Raises:
        FedWardError: The form has none.
    """
    try:
        return int(request.form["shown"])
    except (KeyError, ValueError):
        raise invalid(
            gettext("This form is not whole; nothing was changed."), gettext("Open the page again and repeat it.")
        ) from None


def end_of_day(name: str) -> float | None:
    """The end of the day in a field (seconds since the epoch, this machine's time zone); None when it is empty.

    Raises:
        FedWardError: It is no day.
    """
    return None if (day := day_of(text(name))) is None else (day + timedelta(days=1)).timestamp() - 1


def day_of(value: str) -> datetime | None:
    """The beginning of a day as a browser's date field writes it; None when it is empty.

    Raises:
        FedWardError: It is no day.
    """
    if not value:
        return None
    try:
        found = datetime.strptime(value, "%Y-%m-%d").astimezone()
        found.timestamp()
    except (ValueError, OverflowError):
        raise invalid(
            gettext("'%(value)s' is not a day.", value=value[:40]), gettext("Write it as 2027-12-31.")
        ) from None
    if not 1970 < found.year < 9999:
        raise invalid(gettext("'%(value)s' is not a day.", value=value[:40]), gettext("Write it as 2027-12-31."))
    return found


def period() -> tuple[float | None, float | None]:
    """The days ``since`` and ``until`` of a search, as the seconds since the epoch at which the period begins and ends.

    Raises:
        FedWardError: One is no day.
    """
    since, until = day_of(asked("since")), day_of(asked("until"))
    end = None if until is None else (until + timedelta(days=1)).timestamp()
    return None if since is None else since.timestamp(), end


def number(name: str) -> float | None:
    """A number in a field, with a decimal point or comma; None when it is empty.

    Raises:
        FedWardError: It is no number.
    """
    value = text(name).replace(",", ".")
    if not value:
        return None
    try:
        found = float(value)
    except ValueError:
        found = float("nan")
    if not abs(found) < float("inf"):
        raise invalid(gettext("'%(value)s' is not a number.", value=value[:40]), gettext("Write it as 0.5 or as 1e-3."))
    return found


def asked(name: str) -> str:
    """A filter in the address; empty when it is not there."""
    return request.args.get(name, "").strip()[:200]


def offset() -> int:
    """How many rows come before the page that the address asks for."""
    page = request.args.get("page", "1")
    return (min(int(page[:9]), _LAST_PAGE) - 1) * PAGE if page.isascii() and page.isdigit() and int(page[:9]) > 0 else 0


def before() -> int | None:
    """The row before which the page that the address asks for begins."""
    number_ = request.args.get("before", type=int)
    return None if number_ is None else min(max(number_, 0), LARGEST_NUMBER)


def turn(page: Page | Stretch) -> dict[str, str | None]:
    """The addresses of the pages before and behind, with the same filters, for the macro ``pager``."""
    if isinstance(page, Stretch):
        return {
            "newer": None if page.newer is None else _address(before=page.newer or None),
            "older": None if page.older is None else _address(before=page.older),
        }
    number_ = page.offset // page.size + 1
    return {
        "newer": _address(page=number_ - 1) if number_ > 1 else None,
        "older": _address(page=number_ + 1) if page.offset + page.size < page.total else None,
    }


def _address(**place: int | None) -> str:
    """This page's address at another place of its list."""
    kept = {k: v for k, v in request.args.items() if k in _FILTERS}
    return url_for(str(request.endpoint), **(dict(request.view_args or {}) | kept | place))
