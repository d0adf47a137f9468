"""What the transport authority goes by: the operator's key, pinned at its first use, and the register in force.

FOLDER/         beside the authority's own files
operator.pub    the operator's public key
register.jws    the membership register; an older one never replaces it
"""

from __future__ import annotations

from pathlib import Path

from appliance.enrolment.errors import EnrolmentError
from appliance.protocol.files import replace_file
from appliance.protocol.register import Register, open_register
from appliance.protocol.settings import read_text


class AuthorityHome:
    """The authority's folder, as far as it says who is a member."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, text: str, operator: str) -> Register:
        """Go by a register from now on, unless the very same is held.

        Args:
            text: The register in the operator's signature.
            operator: The operator's public key.

        Raises:
            EnrolmentError: Another operator's key is pinned here.
            ConfigurationError: The register is not the operator's, or is older than the one held.
        """
        pinned, held_text = self._held()
        if pinned not in ("", operator):
            raise EnrolmentError(
                f"{self.folder} is the authority of another operator.",
                remedy="Do not go on if the operator's key was not changed on purpose.",
            )
        held = open_register(held_text, operator).version if held_text else 0
        register = open_register(text, operator, newer_than=held)
        if not pinned:
            replace_file(self.folder / "operator.pub", f"{operator}\n")
        if text.strip() != held_text.strip():
            replace_file(self.folder / "register.jws", text, mode=0o644)  # root writes it where a service reads it
        return register

    def take_newer(self, text: str) -> Register:
        """The same, by the operator's key that is pinned here; raises EnrolmentError if none is."""
        pinned, _ = self._held()
        if not pinned:
            raise self._unused()
        return self.take(text, pinned)

    def register(self) -> Register:
        """The register in force.

        Raises:
            EnrolmentError: None was taken yet.
            ConfigurationError: It is not the operator's.
        """
        pinned, text = self._held()
        if not pinned or not text:
            raise self._unused()
        return open_register(text, pinned)

    def _unused(self) -> EnrolmentError:
        return EnrolmentError(
            f"{self.folder} knows no membership register.",
            remedy="Issue the first certificate with 'fedward authority issue'.",
        )

    def _held(self) -> tuple[str, str]:
        paths = (self.folder / "operator.pub", self.folder / "register.jws")
        pinned, text = (read_text(path) if path.exists() else "" for path in paths)
        return pinned.strip(), text
