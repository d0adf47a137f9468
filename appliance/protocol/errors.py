"""Every error code that a member may send or show, each with its remedy.

``docs/errors.md`` explains them at length; a test holds the two together.

    FedWardError                  what is wrong, where, and what to do
    ├── MessageRefusedError       an envelope that was not accepted
    │   └── TimeRefusedError      it was not written at this time
    ├── SealError                 a sealed file that does not open
    ├── TensorFileError           a tensor file that is not what it should be
    ├── ConfigurationError        a settings file or a key that cannot be used
    └── (each room adds its own)
"""

from __future__ import annotations

import errno
import sqlite3
from enum import StrEnum


class Code(StrEnum):
    """What went wrong, for machines; ``REMEDIES`` says what to do, for people."""

    # Messages
    MESSAGE_MALFORMED = "MESSAGE_MALFORMED"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    MESSAGE_UNSIGNED = "MESSAGE_UNSIGNED"
    MESSAGE_MISADDRESSED = "MESSAGE_MISADDRESSED"
    MESSAGE_EXPIRED = "MESSAGE_EXPIRED"
    CLOCK_WRONG = "CLOCK_WRONG"
    MESSAGE_REPLAYED = "MESSAGE_REPLAYED"
    MESSAGE_VERSION = "MESSAGE_VERSION"
    SENDER_UNKNOWN = "SENDER_UNKNOWN"
    SENDER_ROLE = "SENDER_ROLE"
    # The network host
    NETWORK_UNREACHABLE = "NETWORK_UNREACHABLE"
    NETWORK_REFUSED = "NETWORK_REFUSED"
    TRANSFER_CORRUPT = "TRANSFER_CORRUPT"
    TRANSFER_MISSING = "TRANSFER_MISSING"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    UPLOAD_CONFLICT = "UPLOAD_CONFLICT"
    UPLOAD_BUSY = "UPLOAD_BUSY"
    REQUEST_INVALID = "REQUEST_INVALID"
    JOB_UNKNOWN = "JOB_UNKNOWN"
    JOB_STATE = "JOB_STATE"
    # Governance at the node
    DATASET_UNKNOWN = "DATASET_UNKNOWN"
    DATASET_SUSPENDED = "DATASET_SUSPENDED"
    DATASET_CHANGED = "DATASET_CHANGED"
    DATASET_INVALID = "DATASET_INVALID"
    LOADING_PLAN_INVALID = "LOADING_PLAN_INVALID"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    PLAN_UNKNOWN = "PLAN_UNKNOWN"
    PLAN_NOT_APPROVED = "PLAN_NOT_APPROVED"
    PLAN_INVALID = "PLAN_INVALID"
    DECISION_STALE = "DECISION_STALE"
    ARGUMENT_INVALID = "ARGUMENT_INVALID"
    ARGUMENT_OUT_OF_RANGE = "ARGUMENT_OUT_OF_RANGE"
    POLICY_REFUSED = "POLICY_REFUSED"
    TOO_FEW_SAMPLES = "TOO_FEW_SAMPLES"
    MANDATE_INVALID = "MANDATE_INVALID"
    MANDATE_EXCEEDED = "MANDATE_EXCEEDED"
    MANDATE_EXPIRED = "MANDATE_EXPIRED"
    MANDATE_WITHDRAWN = "MANDATE_WITHDRAWN"
    # A round
    ROUND_REFUSED = "ROUND_REFUSED"
    ROUND_TIMEOUT = "ROUND_TIMEOUT"
    ROUND_STOPPED = "ROUND_STOPPED"
    ROUND_SUPERSEDED = "ROUND_SUPERSEDED"
    ROUND_INTERRUPTED = "ROUND_INTERRUPTED"
    QUORUM_MISSED = "QUORUM_MISSED"
    TRAINING_FAILED = "TRAINING_FAILED"
    TRAINING_DIVERGED = "TRAINING_DIVERGED"
    METRIC_INVALID = "METRIC_INVALID"
    RUNNER_UNAVAILABLE = "RUNNER_UNAVAILABLE"
    RUNNER_LIMIT = "RUNNER_LIMIT"
    SANDBOX_INCOMPLETE = "SANDBOX_INCOMPLETE"
    SANDBOX_DENIED = "SANDBOX_DENIED"
    UPDATE_REFUSED = "UPDATE_REFUSED"
    PARAMETERS_INVALID = "PARAMETERS_INVALID"
    SEAL_BROKEN = "SEAL_BROKEN"
    # Joining and leaving
    ENROLMENT_REFUSED = "ENROLMENT_REFUSED"
    LEAVING_INCOMPLETE = "LEAVING_INCOMPLETE"
    # The VPN
    VPN_NETWORK_REFUSED = "VPN_NETWORK_REFUSED"
    VPN_PEER_REFUSED = "VPN_PEER_REFUSED"
    VPN_PEERS_UNREADABLE = "VPN_PEERS_UNREADABLE"
    VPN_INTERFACE_FAILED = "VPN_INTERFACE_FAILED"
    # Images
    IMAGE_BUILD_FAILED = "IMAGE_BUILD_FAILED"
    IMAGE_REFUSED = "IMAGE_REFUSED"
    # This machine
    CONFIGURATION_INVALID = "CONFIGURATION_INVALID"
    KEY_UNUSABLE = "KEY_UNUSABLE"
    STORE_BUSY = "STORE_BUSY"
    STORE_CORRUPT = "STORE_CORRUPT"
    DISK_FULL = "DISK_FULL"
    AUDIT_ALTERED = "AUDIT_ALTERED"
    NODE_NOT_RUNNING = "NODE_NOT_RUNNING"
    STAFF_REFUSED = "STAFF_REFUSED"
    BREAKPOINT_INVALID = "BREAKPOINT_INVALID"
    BROKER_MISSING = "BROKER_MISSING"
    PART_DIED = "PART_DIED"
    INTERNAL = "INTERNAL"


REMEDIES: dict[Code, str] = {
    Code.MESSAGE_MALFORMED: "Check that both sides run a released FedWard; the text was not a FedWard message.",
    Code.MESSAGE_TOO_LARGE: "Send large values through the parameter store; a message holds 1 MiB at most.",
    Code.MESSAGE_UNSIGNED: "Sign with the identity key that the membership register lists for the sender.",
    Code.MESSAGE_MISADDRESSED: "Send the message on its recipient's own topic, with the recipient's member id inside.",
    Code.MESSAGE_EXPIRED: "Set the clock of both machines by NTP and send again.",
    Code.CLOCK_WRONG: "Set the clock of the machine that is wrong by NTP; what waits is sent again by itself.",
    Code.MESSAGE_REPLAYED: "Nothing to do: a message acts once. If you did not repeat it, tell the operator.",
    Code.MESSAGE_VERSION: "Upgrade the older side; the versions of both stand in the message.",
    Code.SENDER_UNKNOWN: "Ask the operator whether the membership register lists the sender as active.",
    Code.SENDER_ROLE: "Use a member whose role may send this kind of message.",
    Code.NETWORK_UNREACHABLE: "Check the link to the network host; accepted work is kept and sent later.",
    Code.NETWORK_REFUSED: "Read the reason beside this code; ask the operator if it is not yours to change.",
    Code.TRANSFER_CORRUPT: "Send the file again; what arrived was thrown away.",
    Code.TRANSFER_MISSING: "The file has expired or was never completed: run the round again.",
    Code.QUOTA_EXCEEDED: "Delete old uploads, wait for their expiry, or ask the operator for more space.",
    Code.UPLOAD_CONFLICT: "Ask with HEAD how far the upload got and go on from there; another file needs another id.",
    Code.UPLOAD_BUSY: "Wait until the other transfer of this upload has ended, then ask with HEAD how far it got.",
    Code.REQUEST_INVALID: "Correct the request as said; /api/schema describes every call.",
    Code.JOB_UNKNOWN: "List the jobs that you may see.",
    Code.JOB_STATE: "Look at the job's state; a finished job is not changed, submit a new one.",
    Code.DATASET_UNKNOWN: "List the datasets that you may use with search() or list().",
    Code.DATASET_SUSPENDED: "Ask the hospital when the dataset will be available again.",
    Code.DATASET_CHANGED: "The hospital confirms the new files with 'fedward node dataset check --accept'.",
    Code.DATASET_INVALID: "Mend the file at the row and column named and add the dataset again.",
    Code.LOADING_PLAN_INVALID: "Mend the loading plan at the column named; docs/data-manager has examples.",
    Code.PERMISSION_DENIED: "Ask the hospital's data manager to permit you on this dataset.",
    Code.PLAN_UNKNOWN: "Send the plan's text with experiment.request_approval(description).",
    Code.PLAN_NOT_APPROVED: "Ask the hospital to review the plan: 'fedward node plan list' shows it there.",
    Code.PLAN_INVALID: "Mend the plan at the line named and request approval of the new text.",
    Code.DECISION_STALE: "Look at it as it is now, and decide again.",
    Code.ARGUMENT_INVALID: "Correct the argument named; what is allowed stands beside it.",
    Code.ARGUMENT_OUT_OF_RANGE: "Choose a value inside the range that the hospital approved.",
    Code.POLICY_REFUSED: "The rule named decided; 'fedward node policy' shows it at the hospital.",
    Code.TOO_FEW_SAMPLES: "Use more data, or a smaller test_ratio; the hospital's minimum stands beside this code.",
    Code.MANDATE_INVALID: "The researcher submits the experiment again; the mandate is for one federator alone.",
    Code.MANDATE_EXCEEDED: "The researcher attaches to the job and submits what is left, with all that it needs.",
    Code.MANDATE_EXPIRED: "The researcher attaches to the job and submits what is left, for longer.",
    Code.MANDATE_WITHDRAWN: "Ask the researcher, who stopped the experiment; it goes on when submitted again.",
    Code.ROUND_REFUSED: "Read the reason beside this code and run the round again.",
    Code.ROUND_TIMEOUT: "Train less per round (num_updates, epochs); ask the hospital for more time, or to resume it.",
    Code.ROUND_STOPPED: "Ask the one who stopped it; start the experiment again when agreed.",
    Code.ROUND_SUPERSEDED: "Nothing to do: the node trains the later round. Wait longer if its data shall count.",
    Code.ROUND_INTERRUPTED: "Run the round again: the node restarted while it trained.",
    Code.QUORUM_MISSED: "Wait for the missing nodes, or choose a strategy that needs fewer.",
    Code.TRAINING_FAILED: "Look at the plan's line named; the hospital can release the full record to you.",
    Code.TRAINING_DIVERGED: "Lower the learning rate, go back to an earlier breakpoint, or look for extreme values.",
    Code.METRIC_INVALID: "Let testing_step return a number, a Ratio, or such by name; float() makes one of a tensor.",
    Code.RUNNER_UNAVAILABLE: "The hospital starts the runner: 'fedward node start'.",
    Code.RUNNER_LIMIT: "Use less memory, disk or processes, or ask the hospital for a higher limit.",
    Code.SANDBOX_INCOMPLETE: "Do what 'fedward doctor' says on the node's machine, or let policy accept less.",
    Code.SANDBOX_DENIED: "Take it out of the plan; for loader workers say loader_args.num_workers instead.",
    Code.UPDATE_REFUSED: "Return the tensors that the model has: same names, shapes and types, all finite.",
    Code.PARAMETERS_INVALID: "Start from parameters of the plan's own model.",
    Code.SEAL_BROKEN: "Send the file again, sealed to the recipient's key in the current register.",
    Code.ENROLMENT_REFUSED: "Make a new join request as said and hand it to the operator.",
    Code.LEAVING_INCOMPLETE: "Mend what is said, then say 'fedward leave' again: it goes on where it stopped.",
    Code.VPN_NETWORK_REFUSED: "Choose a private network that no member uses, and give it to all hosts.",
    Code.VPN_PEER_REFUSED: "Look at the members with 'fedward vpn status' at the hub, and correct what is said.",
    Code.VPN_PEERS_UNREADABLE: "Mend peers.json as said, or restore it from a backup; until then nobody is cut off.",
    Code.VPN_INTERFACE_FAILED: "Install wireguard-tools and iproute2, and run the command again as root.",
    Code.IMAGE_BUILD_FAILED: "Read the last lines of what failed; build again when the cause is gone.",
    Code.IMAGE_REFUSED: "Start nothing from these artifacts; take them anew from whoever built them.",
    Code.CONFIGURATION_INVALID: "Correct the setting named in the file named.",
    Code.KEY_UNUSABLE: "Give the key file to the service's user with mode 0600.",
    Code.STORE_BUSY: "Only one warden may use a store: stop the other, or choose another folder.",
    Code.STORE_CORRUPT: "Restore the store from the last backup; docs/administrator says how.",
    Code.DISK_FULL: "Free space on the disk of the folder named, or make it writable; work goes on by itself.",
    Code.AUDIT_ALTERED: "Keep the file as evidence, restore the log from a backup and tell the operator.",
    Code.NODE_NOT_RUNNING: "Start the node: 'fedward node start'.",
    Code.STAFF_REFUSED: "Sign in as a person whose role may do this.",
    Code.BREAKPOINT_INVALID: "Choose another breakpoint; the file named is not whole or of another version.",
    Code.BROKER_MISSING: "Put Mosquitto 2.0 or newer on PATH (Debian: apt install mosquitto).",
    Code.PART_DIED: "Read the last lines of the log named; start again when the cause is gone.",
    Code.INTERNAL: "Send the reference beside this code to the operator.",
}


_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_SQLITE_DISK_FULL = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
)


class FedWardError(Exception):
    """Something went wrong that a person can do something about.

    Args:
        message: What is wrong and where, in plain English; shows the wrong value and the expected one.
        code: Overrides the class's own code.
        rule: The policy rule that decided, if one did.
        remedy: Overrides the code's own remedy.
    """

    code: Code = Code.INTERNAL

    def __init__(
        self, message: str, *, code: Code | None = None, rule: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.rule = rule
        self.remedy = remedy or REMEDIES[self.code]

    def explain(self) -> str:
        """The whole error as a person reads it: what, which rule, what to do."""
        rule = f"\nRule: {self.rule}" if self.rule else ""
        return f"{self.message}{rule}\nWhat to do: {self.remedy} ({self.code})"


def takes_no_more(error: BaseException | None) -> bool:
    """Whether a disk refused a file, or SQLite, for a reason of its own: it is full, over its quota, or read-only."""
    if isinstance(error, sqlite3.Error):  # the low byte is the kind; what lies above tells I/O errors apart
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_DISK_FULL
    return isinstance(error, OSError) and error.errno in _DISK_FULL


class MessageRefusedError(FedWardError):
    """An envelope was not accepted; nothing of its body was acted upon."""

    code = Code.MESSAGE_MALFORMED


class TimeRefusedError(MessageRefusedError):
    """An active member wrote it, and by its clock not now: it was under way too long, or a clock is wrong.

    Attributes:
        sender: The member.
        ahead_s: How far the moment of writing lies ahead of our clock; negative: behind it.
    """

    def __init__(self, message: str, *, code: Code, sender: str, ahead_s: float) -> None:
        super().__init__(message, code=code)
        self.sender = sender
        self.ahead_s = ahead_s


class SealError(FedWardError):
    """A sealed file does not open: another recipient's, cut short, or altered."""

    code = Code.SEAL_BROKEN


class TensorFileError(FedWardError):
    """A tensor file is malformed, or its tensors are not the expected ones."""

    code = Code.PARAMETERS_INVALID


class UpdateRefusedError(FedWardError):
    """What a training returned may not leave its node, or is no update of the model that was sent."""

    code = Code.UPDATE_REFUSED


class ConfigurationError(FedWardError):
    """A settings file or a key file cannot be used as it is."""

    code = Code.CONFIGURATION_INVALID
