"""What the warden's parts share, put together once in ``main.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from appliance.protocol.envelope import Signed, Signer
from appliance.protocol.local.kept import KeptTensors
from appliance.protocol.local.runner_client import RunnerClient
from appliance.protocol.messages import Body
from appliance.protocol.register import Register
from appliance.transport.mailbox import Mailbox
from appliance.transport.rest import RestClient
from appliance.warden.approval import PlanBook
from appliance.warden.audit import AuditLog
from appliance.warden.config import NodeConfig
from appliance.warden.datasets import DatasetBook
from appliance.warden.egress import EgressLog
from appliance.warden.policy import Policy
from appliance.warden.store import Store


@dataclass
class Services:
    """One node's parts.

    Attributes:
        read_register: Gives the membership register of the moment; the operator may have issued a new one.
        spool: Where files wait that are on their way in or out.
        kept: What stays here between an experiment's rounds.
        is_connected: Says whether the line to the broker stands.
        config: The settings in force.
        contact_at: When it was last seen to stand, in seconds since the epoch; None: not since the start.
    """

    signer: Signer
    read_register: Callable[[], Register]
    store: Store
    audit: AuditLog
    egress: EgressLog
    policy: Policy
    datasets: DatasetBook
    plans: PlanBook
    mailbox: Mailbox
    rest: RestClient
    runner: RunnerClient
    spool: Path
    kept: KeptTensors
    is_connected: Callable[[], bool] = lambda: False
    contact_at: float | None = None
    config: NodeConfig = field(default_factory=NodeConfig)

    @property
    def register(self) -> Register:
        """The membership register in force."""
        return self.read_register()

    def post(self, connection: sa.Connection, to: str, body: Body, *, in_reply_to: str | None = None) -> Signed:
        """Put a durable message into outbox and egress record; ``mailbox.send`` it after the commit."""
        signed = self.mailbox.post(connection, to, body, in_reply_to=in_reply_to)
        self.egress.message(connection, signed)
        return signed

    def reply(self, to: str, body: Body, *, in_reply_to: str) -> None:
        """Answer a question: recorded, then sent once; whoever asked asks again when it is lost."""
        signed = self.mailbox.sign(to, body, in_reply_to=in_reply_to)
        with self.store.write() as connection:
            self.egress.message(connection, signed)
        self.mailbox.publish(signed)
