"""Languages: the catalogue is whole and safe, every page speaks it, and each reader gets the right one."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Message

import node_gui
from appliance.protocol.errors import REMEDIES, Code, FedWardError
from appliance.protocol.messages import CARD_TEXT
from appliance.warden.store import rounds
from node_gui import formats, languages
from node_gui.access import Role, may
from node_gui.errors import GuiError
from node_gui.forms import invalid, number
from tests import translations
from tests.conftest import Members
from tests.unit.node_gui.conftest import HTTPS, PASSWORD, Gui, write_home
from tests.unit.node_gui.hospital import TABLE, Hospital
from tests.unit.node_gui.test_datasets import FORM
from tests.unit.warden.conftest import PLAN

ROOM = Path(node_gui.__file__).parent
FRENCH = {"Accept-Language": "fr-FR,fr;q=0.9,en;q=0.5"}
CODE = translations.texts_of_the_code()
CATALOGUE = translations.read("fr")
TEXTS = [message for message in CATALOGUE if message.id]
RENEW = "run `make translations`, fill in what it lists, and run it again"
SPOKEN = ("aria-label", "title", "placeholder", "alt")
# Words of English that French does not have: a text with one of them is not in French.
ENGLISH = re.compile(r"\b(the|and|is|are|was|were|of|not|this|that|with|from|by|nobody|here)\b")


def _key(message: Message) -> tuple[Any, str | None]:
    return message.id, message.context


def _forms(message: Message) -> list[str]:
    """A translation in each of its forms."""
    return [message.string] if isinstance(message.string, str) else list(message.string)


def _msgids(message: Message) -> list[str]:
    return [message.id] if isinstance(message.id, str) else list(message.id)


def _values(text: str) -> list[str]:
    return sorted(re.findall(r"%\((\w+)\)s", text))


# The catalogue


def test_the_catalogue_has_the_texts_of_the_code() -> None:
    """A text that is missing shows in English; one too many is work for nothing."""
    have, need = {_key(message) for message in TEXTS}, {_key(message) for message in CODE if message.id}

    assert (need - have, have - need) == (set(), set()), RENEW


def test_every_text_of_the_gui_is_translated() -> None:
    """In all its forms; what the node says may stay English, for pages mark it as that."""
    lacking = [message.id for message in translations.untranslated(CATALOGUE) if message.context is None]

    assert lacking == [], RENEW


def test_no_translation_is_a_guess() -> None:
    """A fuzzy text is one that a tool took over from another."""
    assert [message.id for message in TEXTS if message.fuzzy] == []


def test_a_translation_holds_the_values_of_its_text() -> None:
    """One that is missing tells less; one that does not exist fails the page."""
    wrong = [m.id for m in TEXTS for form in _forms(m) if form and _values(form) != _values(_msgids(m)[-1])]

    assert wrong == []


def test_a_translation_has_no_other_percent_sign() -> None:
    """Templates format every text, also one without values."""
    assert [m.id for m in TEXTS for form in _forms(m) if "%" in re.sub(r"%\(\w+\)s|%%", "", form)] == []


def test_a_text_for_many_has_two_forms() -> None:
    """French counts none and one alike, and all else as many."""
    plural = [message for message in TEXTS if not isinstance(message.id, str)]

    assert CATALOGUE.plural_expr == "(n > 1)"
    assert {len(message.string) for message in plural} == {CATALOGUE.num_plurals} == {2}


def test_a_translation_carries_no_markup() -> None:
    """It goes into pages as it stands, into attributes as well."""
    assert [m.id for m in TEXTS for form in _forms(m) if set(form) & set('<>&"')] == []


def test_translations_are_set_as_french_is() -> None:
    """No line ends before a question mark, and no quotation mark stands alone."""
    untidy = [m.id for m in TEXTS for form in _forms(m) if form != translations.tidy(form, "fr")]

    assert untidy == [], RENEW


def test_ordinary_keys_become_french_typography() -> None:
    """Who translates types what the keyboard has."""
    typed = 'L\'accès à "x" : « oui » ; vraiment ? 12:30 ...'

    assert translations.tidy(typed, "fr") == (
        'L\u2019accès à "x"\u00a0: «\u00a0oui\u00a0»\u202f; vraiment\u202f? 12:30 …'
    )
    assert translations.tidy(typed, "de") == typed


def test_a_new_text_is_listed_and_stays_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that resembles it lends it nothing, and one that the code dropped is gone."""
    code = translations.texts_of_the_code()
    code.add("Approve this text now")
    code.delete("Approve this text")
    monkeypatch.setattr(translations, "texts_of_the_code", lambda: code)

    catalog = translations.updated("fr")

    assert "Approve this text now" in [message.id for message in translations.untranslated(catalog)]
    assert catalog.get("Approve this text") is None
    assert 'msgid "Approve this text now"\nmsgstr ""' in translations.written(catalog, before="# glossary\n\n")


def test_the_file_is_as_the_command_writes_it() -> None:
    """Else the next one who adds a text changes hundreds of lines."""
    file = languages.catalog_path("fr").read_text()

    assert file.split("\n\n", 1)[0] == translations.written(CATALOGUE, before=file).split("\n\n", 1)[0]
    assert [one.locations for one in TEXTS if one.locations and one.locations[0][1]] == []


# What the code says


def test_templates_hold_no_text_of_their_own() -> None:
    """Text beside gettext is never translated."""
    found = []
    for path in sorted(ROOM.rglob("templates/**/*.html")):
        plain = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", path.read_text(), flags=re.DOTALL)
        texts = [text for text in _spoken(plain) if text not in {"· FedWard", "FedWard", "#line-"}]
        found += [(path.name, text) for text in texts if re.search(r"[^\W\d_]{2}", text)]

    assert found == []


def test_the_gui_says_no_in_the_readers_language() -> None:
    """What it raises as a plain FedWardError would pass for the node's English: GuiError, or forms.invalid()."""
    plain = [
        f"{path.name}:{node.lineno}"
        for path in sorted(ROOM.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "FedWardError"
        and any(isinstance(said, ast.Call) for said in node.args)  # gettext's, and no sentence of the node's
    ]

    assert plain == []


def test_sentences_of_the_node_are_found_in_its_code() -> None:
    """What it raises, its remedies and what it returns as a sentence; values become gaps."""
    source = """
def f(x):
    if x:
        raise FedWardError(f"No plan '{x.name}' of {x['who']!r} is known.", remedy="Ask for another one.")
    log("this is no sentence of an error")
    return f"{x} = {x.name}: {x[:3]}"
"""

    assert sorted(translations.sentences(source)) == ["Ask for another one.", "No plan '%(name)s' of %(who)s is known."]


# What pages say


class _Spoken(HTMLParser):
    """What of a page is read by people, or to them; not what it marks as English or shows as code."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._open: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        is_foreign = given.get("lang") == "en" or tag in {"code", "pre", "textarea", "script", "svg"}
        is_foreign = (is_foreign and tag != "html") or any(foreign for _, foreign in self._open)
        if tag not in {"meta", "link", "input", "img", "br", "hr"}:
            self._open.append((tag, is_foreign))
        if not is_foreign:
            self.texts += [given[name] or "" for name in SPOKEN if name in given]

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if data.strip() and not any(foreign for _, foreign in self._open):
            self.texts.append(" ".join(data.split()))


def _spoken(html: str) -> list[str]:
    parser = _Spoken()
    parser.feed(html)
    return parser.texts


def _known_english() -> list[re.Pattern[str]]:
    """Every text that French says otherwise; those made of values nearly alone fit anything."""
    found = []
    for message in TEXTS:
        for msgid, form in zip(_msgids(message), _forms(message), strict=False):
            parts = re.split(r"%\(\w+\)s", msgid)
            if form and form != msgid and (len(parts) == 1 or len(re.findall(r"\w{2,}", " ".join(parts))) >= 2):
                found.append(re.compile(".+".join(map(re.escape, parts))))
    return found


KNOWN_ENGLISH = _known_english()


def _english(html: str) -> list[str]:
    """The texts of a French page that are English."""
    texts = (text for text in _spoken(html) if not text.startswith("/"))  # a path in the data folder
    return [text for text in texts if ENGLISH.search(text) or any(one.fullmatch(text) for one in KNOWN_ENGLISH)]


@dataclass(frozen=True)
class World:
    """A hospital in which something of everything happened, and what stands for the gaps in its addresses."""

    hospital: Hospital
    ids: dict[str, str]

    def paths(self, role: Role) -> Iterator[str]:
        """Every page that the role may open."""
        for rule in self.hospital.gui.app.url_map.iter_rules():
            if "GET" in rule.methods and rule.endpoint not in {"static", "sign_in.page"} and may(role, rule.endpoint):
                path = re.sub(r"<(?:int:)?(\w+)>", lambda gap: self.ids.get(gap[1], "unknown"), rule.rule)
                yield f"{path}?path=autre.csv" if rule.endpoint == "datasets.look" else path


@pytest.fixture
def world(tmp_path: Path, members: Members) -> Iterator[World]:
    """Plans that wait and that are approved, datasets, rounds that ran, failed and wait, people and their doings."""
    hospital = Hospital(tmp_path, members)
    write_home(tmp_path)
    hospital.write_table("autre.csv", TABLE.replace("yes", "oui").replace(",no,", ",non,"))
    for n in (1, 2):
        hospital.node.round(hospital.node.accepted(round=n)).run()
    hospital.node.accepted(round=3)
    approved = hospital.request_plan("import socket\n" + PLAN, name="saignement", description="Essai.")
    reviewer, manager = hospital.signed_in(Role.REVIEWER), hospital.signed_in(Role.DATA_MANAGER)
    given = {"minimum-0": "0.001", "maximum-0": "0.1", "maximum-1": "5", "until": "2090-01-01", "shown": "1"}
    reviewer.post(f"/plans/{approved}/approve", note="Lu.", headers=FRENCH, **given)
    waiting = hospital.request_plan("import os\n" + PLAN, name="saignement", description="Essai.")
    table = FORM | {"description": "Femmes.", "tags": "opt", "path": "autre.csv", "coding-1": "oui = 1, non = 0"}
    dataset = (
        manager.post("/datasets/add", headers=FRENCH, **table).location.split("/")[-1].removesuffix("#permissions")
    )
    manager.post(f"/datasets/{dataset}/permit", headers=FRENCH, researcher="alice", until="2090-01-01")
    hospital.signed_in(Role.ADMINISTRATOR).post("/users/invite", name="Otto", role="auditor")
    ids = {"sha256": waiting, "dataset_id": dataset, "account_id": "1", "name": "minimum_samples", "token": "no-link"}
    card = {"name": "saignement", CARD_TEXT: b"# Saignement\n\nMoyenne : 0,81.\n"}
    ids["jti"] = hospital.node.deliver("alice", hospital.node.release(**card)).envelope.jti
    hospital.node.models.fetch_waiting()
    hospital.node.deliver("alice", hospital.node.release(**card))
    ids["experiment_id"] = str(hospital.node.table(rounds)[0]["experiment_id"])
    yield World(hospital, ids)
    hospital.close()


def test_every_page_speaks_french(world: World) -> None:
    """With data on it, for every role: no text of a page is left in English."""
    opened, english, closed = set(), {}, {}
    for role in Role:
        browser = world.hospital.signed_in(role)
        for path in world.paths(role):
            page = browser.get(path, headers=FRENCH)
            if page.status_code != 200 and "unknown" not in path:
                closed[path] = page.status_code
            if page.mimetype != "text/html":
                continue  # an export: for programs
            opened.add(path)
            if found := _english(page.text):
                english[path] = found

    assert closed == {"/invitation/no-link": 403}
    assert english == {}
    assert len(opened) > 25


def test_pages_speak_french_while_the_node_is_down(world: World) -> None:
    """What went wrong is told in the reader's language when it matters most."""
    world.hospital.stop_warden()
    browser = world.hospital.signed_in(Role.ADMINISTRATOR)
    pages = {path: browser.get(path, headers=FRENCH).text for path in world.paths(Role.ADMINISTRATOR)}

    assert {path: found for path, page in pages.items() if (found := _english(page))} == {}
    assert "Le nœud ne répond pas." in pages["/"]
    assert "Démarrez le nœud" in pages["/policy/"]


ANSWERS: list[tuple[Role, str, dict[str, str]]] = [
    (Role.REVIEWER, "/plans/{sha256}/approve", {"shown": "1", "minimum-0": "7", "maximum-1": "5"}),
    (Role.REVIEWER, "/plans/{sha256}/approve", {"shown": "1", "until": "2001-01-01"}),
    (Role.REVIEWER, "/plans/{sha256}/reject", {"shown": "7", "note": "Non."}),
    (Role.REVIEWER, "/plans/{sha256}/revoke", {"shown": "1", "note": "Non."}),
    (Role.REVIEWER, "/plans/{sha256}/reject", {"note": ""}),
    (Role.DATA_MANAGER, "/datasets/{dataset_id}/suspend", {"shown": "77"}),
    (Role.DATA_MANAGER, "/datasets/{dataset_id}/permit", {"researcher": "alice", "until": "2001-01-01"}),
    (Role.DATA_MANAGER, "/datasets/{dataset_id}/permit", {"researcher": "personne"}),
    (Role.DATA_MANAGER, "/datasets/{dataset_id}/describe", {"shown": "1", "tags": ""}),
    (Role.DATA_MANAGER, "/datasets/look", {"path": "autre.csv", "plan": "columns = {}"}),
    (Role.ADMINISTRATOR, "/policy/minimum_samples", {"value": "10", "shown": "20"}),
    (Role.ADMINISTRATOR, "/policy/minimum_samples", {"value": "dix", "shown": "20"}),
    (Role.ADMINISTRATOR, "/policy/minimum_samples", {"value": "10", "shown": "7"}),
    (Role.ADMINISTRATOR, "/users/invite", {"name": "Otto", "role": "auditor"}),
    (Role.ADMINISTRATOR, "/users/invite", {"name": "Ida", "role": "auditor"}),
    (Role.ADMINISTRATOR, "/users/invite", {"name": "Ida", "role": "?"}),
    (Role.ADMINISTRATOR, "/users/77/lock", {}),
    (Role.ADMINISTRATOR, "/plans/{sha256}/approve", {}),
    (Role.AUDITOR, "/audit/verify", {}),
    (Role.AUDITOR, "/account/password", {"password": "?", "new": "court", "again": "court"}),
    (Role.AUDITOR, "/account/password", {"password": PASSWORD, "new": "court", "again": "court"}),
    (Role.AUDITOR, "/account/second-factor", {"password": PASSWORD, "code": "123"}),
    (Role.AUDITOR, "/experiments/{experiment_id}/stop", {"csrf": "?"}),
]


def test_answers_to_forms_speak_french(world: World) -> None:
    """Confirmations, refusals of the GUI and refusals of the node."""
    english, otherwise = {}, []
    for role, path, form in ANSWERS:
        page = world.hospital.signed_in(role).post(path.format(**world.ids), headers=FRENCH, **form)
        if page.status_code not in {200, 400, 403, 409} or '<html lang="fr">' not in page.text:
            otherwise.append((path, form, page.status_code))
        if found := _english(page.text):
            english[path, str(form)] = found

    assert otherwise == []
    assert english == {}


def test_english_is_found_where_it_is(gui: Gui) -> None:
    """Else the tests above would hold nothing."""
    page = gui.signed_in(Role.REVIEWER).get("/plans/").text

    assert "Training plans" in _english(page)
    assert _english('<p>Nobody of this <b lang="en">is English</b></p>') == ["Nobody of this"]


# Who reads what


def _language(reply: Any) -> str:
    return str(re.search(r'<html lang="(\w+)">', reply.text)[1])


@pytest.mark.parametrize(
    ("asked", "language"),
    [
        ("fr", "fr"),
        ("fr-CA,en;q=0.3", "fr"),
        ("en-GB,fr;q=0.9", "en"),
        ("de,fr;q=0.5", "fr"),
        ("fr;q=0,de", "en"),
        ("", "en"),
    ],
)
def test_a_browser_gets_the_language_that_it_asks_for(gui: Gui, asked: str, language: str) -> None:
    """The first of its languages that there is; English when there is none."""
    reply = gui.client().get("/sign-in", base_url=HTTPS, headers={"Accept-Language": asked})

    assert _language(reply) == language
    assert {"accept-language", "cookie"} <= {name.lower() for name in reply.vary}
    assert reply.headers["Cache-Control"] == "no-store"


def test_a_stranger_chooses_the_language_on_the_sign_in_page(gui: Gui) -> None:
    """Without JavaScript and without an account; it stays after the sign-in, and in the next week."""
    client = gui.client()
    page = client.get("/sign-in?then=/plans/", base_url=HTTPS)
    assert (
        '<button class="quiet small" type="submit" name="language" value="fr" lang="fr">Français</button>' in page.text
    )
    assert 'name="then" value="/sign-in?then=/plans/"' in page.text

    chosen = client.post("/language", base_url=HTTPS, data={"language": "fr", "then": "/sign-in?then=/plans/"})

    cookie = chosen.headers["Set-Cookie"]
    assert cookie.startswith("__Host-fedward-language=fr;")
    assert all(part in cookie for part in ("Secure", "HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=31536000"))
    assert chosen.location == "/sign-in?then=/plans/"
    page = client.get(chosen.location, base_url=HTTPS)
    assert _language(page) == "fr"
    assert 'name="language" value="en" lang="en">English</button>' in page.text


def test_a_person_chooses_the_language_in_the_account(gui: Gui) -> None:
    """Against what the browser asks for, and back."""
    browser = gui.signed_in(Role.AUDITOR)
    assert browser.post("/language", language="fr", then="/account/").location == "/account/"
    page = browser.get("/account/", headers={"Accept-Language": "en"})
    assert _language(page) == "fr"
    assert '<option value="fr" lang="fr" selected>Français</option>' in page.text

    browser.post("/language", language="", then="/account/")

    assert _language(browser.get("/account/", headers={"Accept-Language": "en"})) == "en"


@pytest.mark.parametrize("language", ["de", "../../etc", "fr\r\nSet-Cookie: x=1", ""])
def test_a_language_that_there_is_not_is_not_kept(gui: Gui, language: str) -> None:
    """Neither as a cookie nor as a page that fails."""
    client = gui.client()
    reply = client.post("/language", base_url=HTTPS, data={"language": language, "then": "//elsewhere.test/"})
    client.set_cookie(languages.COOKIE, "xx", domain="node.test", secure=True)

    assert reply.location == "/"
    assert [cookie.split(";")[0] for cookie in reply.headers.getlist("Set-Cookie")] == ["__Host-fedward-language="]
    assert _language(client.get("/sign-in", base_url=HTTPS)) == "en"


def test_another_site_does_not_choose_the_language(gui: Gui) -> None:
    """It changes little, and is refused as all else is."""
    foreign = {"Origin": "https://elsewhere.test"}
    reply = gui.client().post("/language", base_url=HTTPS, data={"language": "fr"}, headers=foreign)

    assert reply.status_code == 403
    assert "Set-Cookie" not in reply.headers


# Values, and what the node says


@pytest.mark.parametrize(
    ("shown", "english", "french"),
    [
        (lambda: formats.count(1234567), "1,234,567", "1\u202f234\u202f567"),
        (lambda: formats.size(3_100_000), "3.1 MB", "3,1\u00a0Mo"),
        (lambda: formats.size(12), "12 B", "12\u00a0o"),
        (lambda: formats.digits(0.03125, 4), "0.03125", "0,03125"),
        (lambda: formats.digits(1.5e-9), "1.5e-09", "1,5e-09"),
        (lambda: formats.span(2700), "45 minutes", "45 minutes"),
        (lambda: formats.ago(time.time() - 7300), "2 hours ago", "il y a 2 heures"),
        (lambda: formats.ago(time.time()), "just now", "à l\u2019instant"),
        (lambda: formats.day(1_798_713_000), "31 December 2026", "31 décembre 2026"),
    ],
)
def test_values_are_written_as_the_reader_writes_them(
    gui: Gui, shown: Callable[[], str], english: str, french: str
) -> None:
    """Numbers, amounts, moments and spans."""
    said = []
    for language in ("en", "fr"):
        with gui.app.test_request_context("/", headers={"Accept-Language": language}):
            said.append(shown())

    assert said == [english, french]


def test_a_number_with_a_comma_is_taken(gui: Gui) -> None:
    """As the page shows it, so it may be typed."""
    with gui.app.test_request_context("/", method="POST", data={"x": "0,5"}):
        assert number("x") == 0.5


def _said(gui: Gui, error: FedWardError, language: str = "fr") -> tuple[str, str]:
    with gui.app.test_request_context("/", headers={"Accept-Language": language}):
        return str(languages.message(error)), str(languages.remedy(error))


def test_the_nodes_sentences_are_translated_with_their_values(gui: Gui) -> None:
    """By their wording; the remedy by its code."""
    error = FedWardError("There is no dataset 'a <b> c' here.", code=Code.DATASET_UNKNOWN)

    message, remedy = _said(gui, error)

    assert message == "Il n\u2019y a pas de jeu de données «\u00a0a &lt;b&gt; c\u00a0» ici."
    assert remedy == "Affichez par search() ou list() les jeux de données dont vous pouvez vous servir."
    assert _said(gui, error, "en") == ("There is no dataset &#39;a &lt;b&gt; c&#39; here.", REMEDIES[error.code])


def test_what_has_no_translation_is_marked_as_english(gui: Gui) -> None:
    """A screen reader then speaks it as English, and a browser can translate it."""
    error = FedWardError("Row 3 <i> is odd.", code=Code.DATASET_INVALID, remedy="Look at row 3.")

    assert _said(gui, error) == (
        '<span lang="en">Row 3 &lt;i&gt; is odd.</span>',
        '<span lang="en">Look at row 3.</span>',
    )
    assert _said(gui, error, "en") == ("Row 3 &lt;i&gt; is odd.", "Look at row 3.")


def test_a_long_text_is_not_searched_for(gui: Gui) -> None:
    """A researcher's words may stand in a round's error; gaps in patterns must not make them dear."""
    error = FedWardError("The plan x is y here." * 1000)

    assert _said(gui, error)[0].startswith('<span lang="en">The plan x')


def test_the_guis_own_sentences_are_not_taken_for_the_nodes(gui: Gui) -> None:
    """They are in the reader's language already; only a remedy that comes with the code is looked up."""
    with gui.app.test_request_context("/", headers=FRENCH):
        own, short = invalid("Saisie vide.", "Remplissez-la."), GuiError("Non.", code=Code.DECISION_STALE)

        assert (languages.message(own), languages.remedy(own)) == ("Saisie vide.", "Remplissez-la.")
        assert languages.remedy(short) == "Regardez ce qu\u2019il en est maintenant, et décidez à nouveau."


def test_exports_keep_their_columns_in_every_language(gui: Gui) -> None:
    """Programs read them: a study's scripts must not depend on who pressed the button."""
    auditor = gui.signed_in(Role.AUDITOR)
    for path in ("/what-left/what-left.csv", "/audit/export.csv"):
        french, english = auditor.get(path, headers=FRENCH).text, auditor.get(path).text

        assert french.splitlines()[0] == english.splitlines()[0]
        assert "at (UTC)" in french.splitlines()[0]
