"""What the GUI itself refuses.

FedWardError                  from the warden or its records: in English, translated where it is shown
└── GuiError                  said by the GUI, in the reader's language already
    └── StaffRefusedError     about accounts and signing in (``staff``)
"""

from __future__ import annotations

from appliance.protocol.errors import FedWardError


class GuiError(FedWardError):
    """The GUI says no; its sentence and its remedy have gone through gettext."""
