"""Brings the GUI's catalogues up to date with its code, and says what has no translation yet.

    python -m tests.translations

New texts are added empty, those that are gone are dropped, the rest stays as it is. What was written on an ordinary
keyboard gets the signs of the language's typography. The order is that of the files, without line numbers, so that a
change of the code changes few lines here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from appliance.protocol.errors import REMEDIES
from node_gui.languages import LANGUAGES, NODE_CONTEXT, SOURCE, catalog_path

ROOT = Path(__file__).resolve().parent.parent
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2")]
KEYWORDS = {"_": None, "gettext": None, "lazy_gettext": None, "ngettext": (1, 2), "lazy_ngettext": (1, 2)}
# Whose sentences reach the GUI's pages as they were written.
NODE_FILES = (
    "appliance/protocol/chain.py",
    *(f"appliance/warden/{name}.py" for name in ("approval", "client", "datasets", "desk", "egress", "governance")),
    "appliance/protocol/numbers.py",
    *(f"appliance/warden/{name}.py" for name in ("history", "models", "policy", "round")),
)
_LEAST_WORDS = 3  # with fewer of its own a sentence is made of its values, and any text would fit it


def catalogues() -> list[str]:
    """The languages that have one."""
    return [language for language in LANGUAGES if language != SOURCE]


def read(language: str) -> Catalog:
    """The catalogue as it lies in the repository."""
    with catalog_path(language).open("rb") as file:
        return read_po(file, locale=language)


def texts_of_the_code() -> Catalog:
    """Every text that a page may show: those that the GUI marks, and what the node says."""
    found = Catalog()
    for name, _line, text, _comments, _context in extract_from_dir(
        ROOT / "node_gui", METHODS, keywords=KEYWORDS, strip_comment_tags=True
    ):
        found.add(text, locations=[(f"node_gui/{name}", 0)])
    for text in REMEDIES.values():
        found.add(text, locations=[("appliance/protocol/errors.py", 0)], context=NODE_CONTEXT)
    for name in NODE_FILES:
        for text in sentences((ROOT / name).read_text()):
            found.add(text, locations=[(name, 0)], context=NODE_CONTEXT)
    return found


def sentences(source: str) -> Iterator[str]:
    """What a module raises or returns as a sentence, with ``%(name)s`` where a value stands."""
    for node in ast.walk(ast.parse(source)):
        said: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            said += node.args[:1] if name.endswith("Error") else []
            said += [keyword.value for keyword in node.keywords if keyword.arg == "remedy"]
        elif isinstance(node, ast.Return):
            said.append(node.value)
        for one in said:
            text = _text(one)
            if len(re.findall(r"[A-Za-z]{2,}", re.sub(r"%\(\w+\)s", "", text))) >= _LEAST_WORDS:
                yield text


def _text(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""
    text, names = "", set[str]()
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            name = base = _name(part.value)
            while name in names:
                name = f"{base}{len(names)}"
            names.add(name)
            text += f"%({name})s"
        elif isinstance(part, ast.Constant):
            text += str(part.value).replace("%", "%%")
    return text


def _name(value: ast.expr) -> str:
    """What a value is called, as a translator understands it."""
    if isinstance(value, ast.Name):
        return value.id
    if isinstance(value, ast.Attribute):
        return value.attr.strip("_")
    if isinstance(value, ast.Subscript):
        key = value.slice
        return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else _name(value.value)
    return "value"


def tidy(text: str, language: str) -> str:
    """A translation in the typography of its language.

    French: no-break spaces before two-part signs and inside quotation marks, the curved apostrophe, the ellipsis.
    """
    if language != "fr":
        return text
    text = text.replace("'", "\u2019").replace("...", "…")
    text = re.sub(r"[ \u00a0\u202f]+:(?=\s|$)", "\u00a0:", text)
    text = re.sub(r"[ \u00a0\u202f]+([;!?])", "\u202f\\1", text)
    text = re.sub(r"«[ \u00a0\u202f]*", "«\u00a0", text)
    return re.sub(r"[ \u00a0\u202f]*»", "\u00a0»", text)


def updated(language: str) -> Catalog:
    """The catalogue with the code's texts, tidied; what is new is empty."""
    catalog, code = read(language), texts_of_the_code()
    catalog.update(code, no_fuzzy_matching=True, update_header_comment=False, update_creation_date=False)
    catalog.obsolete.clear()
    for message in catalog:
        if isinstance(message.id, str) and message.id:
            message.string = tidy(str(message.string or ""), language)
        elif message.id:
            message.string = tuple(tidy(one, language) for one in message.string or [""] * catalog.num_plurals)
    return catalog


def written(catalog: Catalog, before: str) -> str:
    """The catalogue as its file: head and glossary as they were, then the texts."""
    file = BytesIO()
    write_po(file, catalog, width=120, omit_header=True, sort_by_file=True, include_lineno=False, ignore_obsolete=True)
    head, _gap, _texts = before.partition("\n\n")
    return f"{head}\n\n{file.getvalue().decode().lstrip()}"


def untranslated(catalog: Catalog) -> list[Message]:
    """What shows in English."""
    return [message for message in catalog if message.id and not all(message.string or ("",))]


def main() -> None:
    """Update each catalogue, and list what is left to do."""
    for language in catalogues():
        catalog, path = updated(language), catalog_path(language)
        path.write_text(written(catalog, before=path.read_text()))
        missing = untranslated(catalog)
        print(f"{path.relative_to(ROOT)}: {len(catalog)} texts, {len(missing)} without translation")
        for message in missing:
            print(f"  {message.locations[0][0]}: {message.id!r}")


if __name__ == "__main__":
    main()
