"""The operator's folder: the key that makes members, and the book it signs. It never leaves the operator's machine.

HOME/
keys/           identity.pem, sealing.pem (0600; made here, never copied)
operator.pub    the identity key's public half, which every member pins
register.jws    the membership register: all that is public of all this
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.enrolment.errors import EnrolmentError
from appliance.enrolment.joining import open_member_keys
from appliance.enrolment.register_book import RegisterBook
from appliance.protocol.files import locked, replace_file
from appliance.protocol.keys import MemberKeys
from appliance.protocol.register import Member, Role, open_register
from appliance.protocol.settings import read_text

OPERATOR = "operator"  # its member id
REGISTER_FILE = "register.jws"
PUBLIC_FILE = "operator.pub"


def initialise(home: Path, *, consortium: str, contact: str) -> bool:
    """Make the operator's keys and the register's first version; what is there is kept.

    Args:
        home: The folder.
        consortium: The consortium's name, for good.
        contact: Where people reach the operator; shown to all members.

    Returns:
        Whether anything was made or changed.

    Raises:
        EnrolmentError: The folder is another consortium's, or its keys are gone.
        ConfigurationError: A key or the register there cannot be used.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(home):
        if (home / REGISTER_FILE).exists() and not (home / "keys").exists():
            raise EnrolmentError(
                f"{home} has a register and no keys: other keys could not change it.",
                remedy="Restore the keys from the backup.",
            )
        keys = open_member_keys(home / "keys")
        book = RegisterBook(home / REGISTER_FILE, keys, consortium=consortium)
        before = [path.read_text() if path.exists() else "" for path in (home / REGISTER_FILE, home / PUBLIC_FILE)]
        book.add(
            Member(
                id=OPERATOR,
                role=Role.OPERATOR,
                institution=consortium,
                contact=contact,
                identity=keys.public.identity,
                sealing=keys.public.sealing,
            )
        )
        after = [book.issue(), f"{keys.public.identity}\n"]
        if after[1] != before[1]:
            replace_file(home / PUBLIC_FILE, after[1])
    return after != before


@contextmanager
def open_book(home: Path) -> Iterator[RegisterBook]:
    """The operator's book, alone with it: two commands at once take turns.

    Raises:
        EnrolmentError: The folder is no operator's.
        ConfigurationError: A key or the register there cannot be used.
    """
    if not (home / REGISTER_FILE).exists():
        raise EnrolmentError(f"{home} is no operator's folder.", remedy="Make it one with 'fedward operator init'.")
    with locked(home):
        keys = MemberKeys.load(home / "keys")
        register = open_register(read_text(home / REGISTER_FILE), keys.public.identity)
        yield RegisterBook(home / REGISTER_FILE, keys, consortium=register.consortium)
