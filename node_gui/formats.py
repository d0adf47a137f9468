"""Values as people read them: moments, spans, sizes, counts; in the reader's language, each with its unit."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from babel.dates import format_datetime as babel_datetime
from babel.dates import format_timedelta
from babel.numbers import format_decimal, get_decimal_symbol
from flask import Flask
from flask_babel import get_locale, gettext
from flask_babel import lazy_gettext as _

from appliance.protocol.wording import spelt_out

# Chrome's sign stands in Edge's, and Safari's in both.
_BROWSERS = (("Edg", "Edge"), ("Firefox", "Firefox"), ("Chrome", "Chrome"), ("Safari", "Safari"))
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)
_SPAN_MOST_S = 100 * 365.25 * 86_400
_MOMENT_MOST_S = 253_300_000_000.0  # in the year 9996: what calendars and time zones can hold
_SIZES = (_("%(size)s B"), _("%(size)s kB"), _("%(size)s MB"), _("%(size)s GB"), _("%(size)s TB"))


def register(app: Flask) -> None:
    """Make the filters known to the templates."""
    for function in (ago, browser, clock, count, day, digits, exact, iso, megabytes, shortened, size, span, spelt_out):
        app.add_template_filter(function)


def ago(seconds: float) -> str:
    """A moment beside now, as ``2 hours ago`` or ``in 3 days``."""
    apart = _within(seconds) - time.time()
    if abs(apart) < 10:
        return str(gettext("just now"))
    return format_timedelta(timedelta(seconds=apart), add_direction=True, threshold=1, locale=get_locale())


def exact(seconds: float) -> str:
    """A moment to the second, in this machine's time zone."""
    local = datetime.fromtimestamp(_within(seconds)).astimezone()
    return str(babel_datetime(local, "d MMMM y, HH:mm:ss", locale=get_locale())) + f" {local.tzname()}"


def browser(user_agent: str) -> str:
    """A browser as people call it, as ``Firefox on Windows``; what it says of itself is only a hint."""
    program = next((name for sign, name in _BROWSERS if sign in user_agent), "")
    system = next((name for sign, name in _SYSTEMS if sign in user_agent), "")
    if not program:
        return str(gettext("another browser"))
    return str(gettext("%(program)s on %(system)s", program=program, system=system)) if system else program


def clock(seconds: float) -> str:
    """The time of the day, as ``14:05:30 CET``."""
    return datetime.fromtimestamp(_within(seconds)).astimezone().strftime("%H:%M:%S %Z")


def shortened(text: str) -> str:
    """A long hash or id by its beginning; anything else as it is."""
    is_hash = len(text) >= 24 and all(c in "0123456789abcdef-" for c in text)
    return f"{text[:10]}…" if is_hash else text


def iso(seconds: float) -> str:
    """A moment for machines (ISO 8601, UTC)."""
    return datetime.fromtimestamp(_within(seconds), UTC).isoformat(timespec="seconds")


def day(seconds: float) -> str:
    """A day, as ``31 December 2027``."""
    return str(babel_datetime(datetime.fromtimestamp(_within(seconds)).astimezone(), "d MMMM y", locale=get_locale()))


def span(seconds: float) -> str:
    """A length of time, as ``45 minutes``."""
    if not seconds >= 1:
        return str(gettext("under a second"))
    return format_timedelta(timedelta(seconds=round(min(seconds, _SPAN_MOST_S))), threshold=1.2, locale=get_locale())


def size(size_bytes: float) -> str:
    """An amount of data, as ``3.1 MB`` (powers of a thousand)."""
    value, step = float(size_bytes), 0
    while value >= 999.5 and step < len(_SIZES) - 1:
        value, step = value / 1000, step + 1
    return str(_SIZES[step]) % {"size": format_decimal(value, "#,##0.#" if step else "0", locale=get_locale())}


def megabytes(size_bytes: float) -> str:
    """An amount of memory, as ``412 MB``: one unit in a column that is compared."""
    return str(_SIZES[2]) % {"size": format_decimal(size_bytes / 1e6, "#,##0", locale=get_locale())}


def count(number: float) -> str:
    """A number with its thousands set apart."""
    return str(format_decimal(number, locale=get_locale()))


def digits(number: float, most: int = 6) -> str:
    """A measured number with so many digits, as ``0.0312`` or ``1.2e-09``."""
    return f"{number:.{most}g}".replace(".", get_decimal_symbol(get_locale() or "en"))


def _within(moment: float) -> float:
    """A moment that a calendar has: what a researcher's code or a hand-written file says may be any number."""
    return max(0.0, min(moment, _MOMENT_MOST_S))
