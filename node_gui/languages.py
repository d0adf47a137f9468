"""Which language a page speaks, the catalogue of its texts, and what the node says in English behind it.

The catalogue is ``translations/<language>/LC_MESSAGES/messages.po``, read when somebody first needs it: there is no
compiled file beside it that could be forgotten. ``make translations`` brings it up to date with the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations
from flask import Flask, request
from flask_babel import Babel, Domain, get_locale
from markupsafe import Markup, escape

from appliance.protocol.errors import REMEDIES, FedWardError
from node_gui.errors import GuiError

SOURCE = "en"  # the language of the texts in the code
LANGUAGES = {SOURCE: "English", "fr": "Français"}
COOKIE = "__Host-fedward-language"  # of the browser, not of the account: the sign-in page speaks it too
COOKIE_S = 365 * 86_400
# Sentences of the warden and of its records stand in the catalogue under this context, with %(name)s for a value.
NODE_CONTEXT = "node"
_FOLDER = Path(__file__).parent / "translations"
_VALUE = re.compile(r"%\((\w+)\)s")
_LONGEST = 1000  # characters of a sentence that is looked for; a longer one is a list of faults


class _Catalogues(Domain):  # type: ignore[misc] # the library has no types
    """The texts in the reader's language."""

    def get_translations(self) -> NullTranslations:
        locale = get_locale()
        return NullTranslations() if locale is None else translations(str(locale))


def register(app: Flask) -> None:
    """Let the pages speak the reader's language."""
    babel = Babel(app, locale_selector=reader_language)
    babel.domain_instance = _Catalogues()
    for function in (message, remedy, sentence):
        app.add_template_filter(function)


def chosen_language() -> str | None:
    """What was chosen in this browser, if it was."""
    chosen = request.cookies.get(COOKIE)
    return chosen if chosen in LANGUAGES else None


def reader_language() -> str:
    """What was chosen in this browser, else the first that the browser asks for and that there is."""
    # In the browser's order, and by language alone: best_match() would rather give English than French of Canada.
    asked = (tag.replace("_", "-").split("-")[0].lower() for tag, quality in request.accept_languages if quality > 0)
    return chosen_language() or next((language for language in asked if language in LANGUAGES), SOURCE)


def catalog_path(language: str) -> Path:
    """Where a language's texts lie."""
    return _FOLDER / language / "LC_MESSAGES" / "messages.po"


@cache
def translations(language: str) -> NullTranslations:
    """The texts in a language, as gettext takes them."""
    if language == SOURCE:
        return NullTranslations()
    compiled = BytesIO()
    write_mo(compiled, _catalog(language))
    compiled.seek(0)
    return Translations(compiled)


# What the node says


def message(error: FedWardError) -> Markup:
    """What went wrong, as a page says it."""
    return escape(error.message) if isinstance(error, GuiError) else sentence(error.message)


def remedy(error: FedWardError) -> Markup:
    """What to do about it, as a page says it."""
    is_own = isinstance(error, GuiError) and error.remedy != REMEDIES[error.code]
    return escape(error.remedy) if is_own else sentence(error.remedy)


def sentence(text: str) -> Markup:
    """A sentence of the node's: in the reader's language where the catalogue has it, else marked as English."""
    language = str(get_locale() or SOURCE)
    if language == SOURCE:
        return escape(text)
    found = _translated(text, language)
    return Markup('<span lang="en">{}</span>').format(text) if found is None else escape(found)


def _translated(text: str, language: str) -> str | None:
    if len(text) > _LONGEST:
        return None
    for pattern, translation in _sentences(language):
        if (fits := pattern.fullmatch(text)) is not None:
            return translation % fits.groupdict() if fits.groupdict() else translation
    return None


@cache
def _sentences(language: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """The node's sentences that have a translation, those with the fewest gaps first: they fit nothing else."""
    found = [(str(one.id), str(one.string)) for one in _catalog(language) if one.context == NODE_CONTEXT and one.string]
    found.sort(key=lambda pair: len(_VALUE.findall(pair[0])))
    return tuple((re.compile("".join(_pattern(msgid)), re.DOTALL), translation) for msgid, translation in found)


def _pattern(msgid: str) -> Iterator[str]:
    for n, part in enumerate(_VALUE.split(msgid)):
        yield f"(?P<{part}>.+?)" if n % 2 else re.escape(part)


@cache
def _catalog(language: str) -> Catalog:
    with catalog_path(language).open("rb") as file:
        return read_po(file, locale=language)
