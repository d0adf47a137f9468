"""The warden's process: puts the parts together, and handles what happens in the order in which it happens."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import structlog

from appliance.protocol.envelope import Signer
from appliance.protocol.errors import ConfigurationError, FedWardError
from appliance.protocol.home import MemberHome, RegisterFile
from appliance.protocol.local.kept import KeptTensors
from appliance.protocol.local.runner_client import RunnerClient
from appliance.protocol.logs import ErrorStreamLogger
from appliance.protocol.messages import Heartbeat
from appliance.protocol.register import CONSORTIUM, Role
from appliance.transport.mailbox import Mailbox
from appliance.transport.mqtt import Arrived, LinkUp, MqttLink
from appliance.transport.register import RegisterPull
from appliance.transport.rest import RestClient
from appliance.warden.approval import PlanBook
from appliance.warden.audit import AuditLog
from appliance.warden.config import read_config
from appliance.warden.datasets import DatasetBook
from appliance.warden.desk import Desk
from appliance.warden.egress import EgressLog
from appliance.warden.governance import SOCKET_NAME, Governance, GovernanceServer
from appliance.warden.history import MODELS_FOLDER
from appliance.warden.models import ModelShelf
from appliance.warden.policy import Policy
from appliance.warden.presence import Presence
from appliance.warden.queue import RoundQueue
from appliance.warden.round import OnStep
from appliance.warden.services import Services
from appliance.warden.store import Store

READY_FILE = "run/ready"
_log = structlog.get_logger(__name__)


class Warden:
    """One node's warden.

    Args:
        root: The node's folder.
        on_step: Told of each finished step of each round; for tests that pull the plug.
    """

    def __init__(self, root: Path, on_step: OnStep = lambda _jti, _step: None) -> None:
        home = MemberHome(root)
        config = read_config(root)
        register = RegisterFile(home)
        member = register().require(home.member_id)
        if member.role is not Role.NODE or member.keys != home.keys().public:
            raise ConfigurationError(f"{root}: the register does not list these keys as a node's.")
        self._root = root
        self._register_version = register().version
        self._stopping = threading.Event()
        self._heartbeat_s = config.heartbeat_s
        self._next_heartbeat = 0.0
        store = Store(home.folder("store"))
        signer = Signer(home.member_id, home.keys())
        audit, egress = AuditLog(), EgressLog()
        policy = Policy(store, config.consortium_policy)
        endpoint = home.settings.endpoints[0]
        rest = RestClient(endpoint.rest_url, home.tls, signer)
        self._link = MqttLink(
            endpoint,
            member_id=home.member_id,
            client_id=store.secret("mqtt_client_id"),
            tls=home.tls,
        )
        self._services = Services(
            signer=signer,
            read_register=register,
            store=store,
            audit=audit,
            egress=egress,
            policy=policy,
            datasets=DatasetBook(config.data_folder, audit),
            plans=PlanBook(policy, audit),
            mailbox=Mailbox(store.engine, signer, register, self._publish),
            rest=rest,
            runner=RunnerClient(config.runner_socket),
            spool=home.folder("spool"),
            kept=KeptTensors(home.folder("kept")),
            is_connected=lambda: self._link.is_up,
            config=config,
        )
        self._pull = RegisterPull(home, rest, self._link.wake)
        self._queue = RoundQueue(self._services, config.concurrent_rounds, on_step)
        self._presence = Presence(root, self._services.rest, lambda: self._queue.running)
        self._models = ModelShelf(self._services, home.folder(MODELS_FOLDER))
        self._desk = Desk(self._services, self._queue, self._models)
        governance = Governance(self._services, self._queue, self._models)
        self._governance = GovernanceServer(governance, root / SOCKET_NAME)

    def run(self) -> None:
        """Work until ``stop``; the link's troubles are waited out."""
        self._note("node.started")
        self._governance.start()
        self._queue.start()
        self._models.start()
        self._pull.start()
        self._link.open()
        self._presence.start()
        ready = self._root / READY_FILE
        ready.write_text(f"{os.getpid()}\n")
        try:
            while not self._stopping.is_set():
                self._turn()
        finally:
            ready.unlink(missing_ok=True)
            self._close()

    def stop(self) -> None:
        """End ``run`` soon; may be called from a signal handler."""
        self._stopping.set()
        self._link.wake()

    def _turn(self) -> None:
        for event in self._link.receive(self._next_due()):
            self._take_register()
            if isinstance(event, Arrived):
                self._desk.handle(event)
            elif isinstance(event, LinkUp):
                self._services.contact_at = time.time()
                self._pull.ask()
                self._services.mailbox.repeat_all()
                self._next_heartbeat = 0.0
        self._take_register()
        self._services.mailbox.repeat_due()
        if time.monotonic() >= self._next_heartbeat:
            self._beat()

    def _take_register(self) -> None:
        """Note a newer membership register, and end what runs for whoever is no member any more."""
        services = self._services
        register = services.register
        if register.version == self._register_version:
            return
        try:
            with services.store.write() as connection:
                services.audit.write(
                    connection, "operator", "register.changed", str(register.version), digest=register.digest()
                )
                departed = self._queue.mark_departed(connection, register)
        except FedWardError as error:
            _log.error("the new register could not be noted; trying again", reason=error.message)
            return
        self._register_version = register.version
        for experiment in departed:
            threading.Thread(target=self._queue.end, args=(experiment,), daemon=True).start()

    def _next_due(self) -> float:
        due = min(self._services.mailbox.next_due_s(), self._next_heartbeat - time.monotonic())
        return max(0.0, due)

    def _beat(self) -> None:
        """Say that we live, and do the housekeeping that has no other hour."""
        self._next_heartbeat = time.monotonic() + self._heartbeat_s
        services = self._services
        if self._link.is_up:
            services.contact_at = time.time()
        services.mailbox.send_once(CONSORTIUM, Heartbeat(every_s=self._heartbeat_s, running_rounds=self._queue.running))
        try:
            self._desk.tick()
            with services.store.write() as connection:
                services.mailbox.forget_expired(connection)
            services.egress.flush(services.store)
            self._queue.tell_paused()
        except FedWardError as error:
            _log.error("the store takes nothing; trying again", reason=error.message)

    def _close(self) -> None:
        self._pull.close()
        self._governance.close()
        self._presence.close()
        self._queue.close()
        self._models.close()
        self._link.close()
        try:
            self._note("node.stopped")
        finally:
            self._services.store.close()

    def _note(self, event: str) -> None:
        services = self._services
        services.egress.flush(services.store)
        with services.store.write() as connection:
            services.audit.write(connection, "node", event, services.signer.member_id)

    def _publish(self, topic: str, text: str) -> None:
        if self._link.is_up:
            self._services.egress.count(topic, text)
            self._link.publish(topic, text)


def run_warden(root: Path, on_step: OnStep = lambda _jti, _step: None) -> None:
    """Run a warden until SIGTERM or SIGINT."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=ErrorStreamLogger,
    )
    warden = Warden(root, on_step)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: warden.stop())
    warden.run()
