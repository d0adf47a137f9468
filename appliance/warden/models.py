"""Models that researchers send for the hospital's staff: taken, looked at, kept, handed out, deleted.

A model is three files of a form that says nothing but itself: tensors (safetensors), and a card as JSON and as text.
This process opens the tensor file's header and parses the card; nothing else of them is opened or executed anywhere at
the node, and staff download them. Their names are ours: nobody else's names a file here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa
import structlog

from appliance.protocol import sealing
from appliance.protocol.envelope import Clock, Envelope
from appliance.protocol.errors import Code, FedWardError, TensorFileError, takes_no_more
from appliance.protocol.files import sync_folder
from appliance.protocol.messages import (
    CARD_FILE,
    CARD_TEXT,
    MODEL_FILE,
    RELEASE_FILES,
    ModelKept,
    Release,
    SealedFile,
)
from appliance.protocol.rounds import RoundStep
from appliance.protocol.sealing import sealed_size
from appliance.protocol.tensors import TensorFile
from appliance.warden.policy import PolicyRefusedError
from appliance.warden.round import error_reply
from appliance.warden.services import Services
from appliance.warden.store import models, rounds
from appliance.warden.store import rows as found_rows

AT_MOST, OF_ONE_RESEARCHER = 50, 10  # models that are kept: beyond that staff delete some first
ALL_BYTES = 32 << 30
CARD_BYTES, TEXT_BYTES = 1 << 20, 256 << 10
RETRY_S = 5.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What passes by itself: a model is put off and not lost.
_PASSING = frozenset({Code.DISK_FULL, Code.NETWORK_UNREACHABLE, Code.STORE_BUSY, Code.CLOCK_WRONG})
_log = structlog.get_logger(__name__)


class ModelRefusedError(FedWardError):
    """A file of a release is not what it must be."""

    code = Code.PARAMETERS_INVALID
    remedy = "Send the model with experiment.release(), which writes its files."


@dataclass(frozen=True)
class CheckedModel:
    """What is shown of a model.

    Attributes:
        sha256: Of its tensor file.
        parameters: Numbers in it.
        rounds: As its card says, like the next; None where that says nothing of use.
    """

    sha256: str
    parameters: int
    rounds: int | None
    plan_sha256: str | None


class ModelShelf:
    """The models that are kept here, and those on their way.

    What the desk accepted is fetched one after the other, in a thread of its own; a restart takes it up again.

    Args:
        services: The node's parts.
        folder: Only this node's user can read it.
        clock: Seconds since the epoch.
    """

    def __init__(self, services: Services, folder: Path, clock: Clock = time.time) -> None:
        self._services = services
        self._folder = folder
        self._clock = clock
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="models", daemon=True)

    def start(self) -> None:
        """Take up what waits, and throw away what a crash left."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._services.store.read() as connection:
            kept = set(connection.scalars(sa.select(models.c.jti).where(models.c.kept_at.is_not(None))))
        for place in self._folder.iterdir():
            if place.name not in kept:
                shutil.rmtree(place, ignore_errors=True)
        self._thread.start()

    def notify(self) -> None:
        """A release was accepted."""
        self._changed.set()

    def close(self) -> None:
        """Let go of what is fetched: the next start goes on."""
        self._closing.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(RETRY_S)

    # What is decided

    def accept(self, connection: sa.Connection, envelope: Envelope, release: Release) -> None:
        """Note, in the caller's transaction, that a release is to be fetched.

        Raises:
            FedWardError: A rule of this node forbids it, it is too large, or the node keeps as many as it may.
        """
        self._require_its_own(connection, envelope.sender, release)
        size = self._require_small(release)
        self._require_room(connection, envelope.sender, size)
        connection.execute(
            models.insert().values(
                jti=envelope.jti,
                researcher=envelope.sender,
                experiment_id=release.experiment_id,
                name=release.name,
                request=release.model_dump_json(),
                size_bytes=size,
                asked_at=self._clock(),
            )
        )
        self._services.audit.write(
            connection, envelope.sender, "model.accepted", release.experiment_id, name=release.name, size_bytes=size
        )

    def delete(self, connection: sa.Connection, staff: str, jti: str) -> None:
        """Forget a model, in the caller's transaction; ``discard`` its files after the commit.

        Raises:
            FedWardError: There is none (DECISION_STALE): somebody was quicker, perhaps.
        """
        row = self.require(connection, jti)
        connection.execute(models.delete().where(models.c.jti == jti))
        self._services.audit.write(
            connection, f"staff:{staff}", "model.deleted", row["experiment_id"], name=row["name"], sha256=row["sha256"]
        )

    def require(self, connection: sa.Connection, jti: str) -> dict[str, Any]:
        """The model of that id; raises FedWardError (DECISION_STALE) when there is none."""
        found = found_rows(connection, sa.select(models).where(models.c.jti == jti))
        if not found:
            raise FedWardError("This model is not here any more.", code=Code.DECISION_STALE)
        return found[0]

    def discard(self, jti: str) -> None:
        """Delete the files of a model that is forgotten."""
        shutil.rmtree(self._folder / jti, ignore_errors=True)

    def _require_its_own(self, connection: sa.Connection, researcher: str, release: Release) -> None:
        rule = self._services.policy.rule("models")
        if rule.value == "off":
            raise PolicyRefusedError("This node takes no models.", rule=str(rule))
        is_its = rounds.c.experiment_id == release.experiment_id
        asked_by = set(connection.scalars(sa.select(rounds.c.researcher).where(is_its).distinct()))
        if asked_by - {researcher}:
            raise FedWardError(
                "Only its own researcher may release an experiment's model.", code=Code.PERMISSION_DENIED
            )
        answered = sa.select(rounds.c.jti).where(is_its, rounds.c.step == RoundStep.REPLIED).limit(1)
        if rule.value == "own" and connection.scalar(answered) is None:
            raise PolicyRefusedError("This node answered no round of that experiment.", rule=str(rule))

    def _require_small(self, release: Release) -> int:
        """The size of all files in bytes; raises FedWardError when one is too large."""
        largest = self._services.policy.rule("maximum_update_bytes")
        if release.model.size_bytes > sealed_size(largest.value):
            raise PolicyRefusedError("The model is larger than this node takes.", rule=str(largest))
        for part, most in ((release.card, CARD_BYTES), (release.card_text, TEXT_BYTES)):
            if part.size_bytes > sealed_size(most):
                raise ModelRefusedError(f"The model's card is larger than {most} bytes.")
        return release.model.size_bytes + release.card.size_bytes + release.card_text.size_bytes

    def _require_room(self, connection: sa.Connection, researcher: str, size: int) -> None:
        counted = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(models.c.size_bytes), 0))
        count, held = connection.execute(counted).one()
        its = connection.scalar(sa.select(sa.func.count()).where(models.c.researcher == researcher))
        if count >= AT_MOST or held + size > ALL_BYTES or (its or 0) >= OF_ONE_RESEARCHER:
            raise PolicyRefusedError(
                f"This node keeps {AT_MOST} models at most, {OF_ONE_RESEARCHER} of one researcher, and "
                f"{ALL_BYTES >> 30} GiB of them.",
                remedy="Ask the hospital's staff to delete older ones under Models in their node GUI.",
            )

    # What is fetched

    def _work(self) -> None:
        while not self._closing.is_set():
            self._changed.clear()
            try:
                is_done = self.fetch_waiting()
            except Exception:  # noqa: BLE001 - the keeper outlives whatever the disk does
                _log.exception("models cannot be fetched; trying again", in_s=RETRY_S)
                is_done = False
            self._changed.wait(None if is_done else RETRY_S)

    def fetch_waiting(self) -> bool:
        """Fetch what waits; False when something was put off."""
        with self._services.store.read() as connection:
            query = sa.select(models).where(models.c.kept_at.is_(None)).order_by(models.c.asked_at)
            waiting = found_rows(connection, query)
        done = [self._fetch(row) for row in waiting if not self._closing.is_set()]
        return all(done)

    def _fetch(self, row: Mapping[str, Any]) -> bool:
        release = Release.model_validate_json(row["request"])
        part = self._folder / f".{row['jti']}"
        try:
            if not self._services.register.is_active(row["researcher"]):
                raise FedWardError(  # noqa: TRY301 - as all that this release may come to
                    f"'{row['researcher']}' is not an active member any more.", code=Code.SENDER_UNKNOWN
                )
            for left in (part, self._folder / row["jti"]):  # by a try before
                shutil.rmtree(left, ignore_errors=True)
            part.mkdir(mode=0o700, parents=True)
            for field, name in RELEASE_FILES.items():
                self._unseal(getattr(release, field), part / name, f"{release.experiment_id}/release/{name}")
            checked = check_model(part, release.experiment_id, row["researcher"])
            self._keep(row, release, part, checked)
        except (FedWardError, OSError) as error:
            shutil.rmtree(part, ignore_errors=True)
            return self._end(row, _explained(error, self._folder))
        return True

    def _unseal(self, sealed: SealedFile, target: Path, context: str) -> None:
        services = self._services
        key = sealing.open_key(sealed.content_key, services.signer.keys.sealing, context=context)
        enclosed = sealed.enclosed()
        source: BinaryIO
        source = services.rest.download(sealed, stop=self._closing) if enclosed is None else io.BytesIO(enclosed)
        with source, target.open("xb") as out:
            sealing.unseal(sealing.read_chunks(source), key, out)
            out.flush()
            os.fsync(out.fileno())

    def _keep(self, row: Mapping[str, Any], release: Release, part: Path, checked: CheckedModel) -> None:
        services, place = self._services, self._folder / row["jti"]
        size = sum(path.stat().st_size for path in part.iterdir())
        sync_folder(part)
        part.rename(place)
        sync_folder(self._folder)
        with services.store.write() as connection:
            changed = connection.execute(
                models.update()
                .where(models.c.jti == row["jti"])
                .values(
                    request=None,
                    size_bytes=size,
                    kept_at=self._clock(),
                    **asdict(checked),
                )
            )
            if not changed.rowcount:  # staff deleted it meanwhile
                shutil.rmtree(place, ignore_errors=True)
                return
            body = ModelKept(experiment_id=release.experiment_id, model_sha256=checked.sha256)
            signed = services.post(connection, row["researcher"], body, in_reply_to=row["jti"])
            services.audit.write(
                connection, "node", "model.kept", release.experiment_id, name=release.name, sha256=checked.sha256
            )
        services.mailbox.send(signed)

    def _end(self, row: Mapping[str, Any], error: FedWardError) -> bool:
        """Refuse a release, unless what stands in its way passes; True when nothing is left to do."""
        if self._closing.is_set() or error.code in _PASSING:
            _log.warning("a model is put off", jti=row["jti"], in_s=RETRY_S, code=error.code, reason=error.message)
            return False
        services = self._services
        with services.store.write() as connection:
            if not connection.execute(models.delete().where(models.c.jti == row["jti"])).rowcount:
                return True
            signed = services.post(connection, row["researcher"], error_reply(error, None), in_reply_to=row["jti"])
            services.audit.write(
                connection,
                "node",
                "model.refused",
                row["experiment_id"],
                name=row["name"],
                code=error.code,
                reason=error.message,
            )
        services.mailbox.send(signed)
        return True


def check_model(folder: Path, experiment_id: str, researcher: str) -> CheckedModel:
    """Look at a model's files.

    Raises:
        FedWardError: One is no safetensors file that holds tensors alone, no JSON, no text, or they do not belong
            together: the card must name the experiment, the researcher and the model's SHA-256.
    """
    try:
        tensors = TensorFile(folder / MODEL_FILE)
    except TensorFileError as error:
        raise ModelRefusedError(f"The model was refused. {error.message}") from error
    with (folder / MODEL_FILE).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    card = _json_object(folder / CARD_FILE)
    files = card.get("files_sha256")
    stated = files.get(MODEL_FILE) if isinstance(files, dict) else None
    said = (card.get("experiment_id"), card.get("researcher"), stated)
    if said != (experiment_id, researcher, sha256):
        raise ModelRefusedError("The model's card is of another model, experiment or researcher.")
    try:
        text = (folder / CARD_TEXT).read_bytes()
        is_text = len(text) <= TEXT_BYTES and "\0" not in text.decode()
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise ModelRefusedError("The model's card is no text.")
    plan = card.get("training_plan")
    plan_sha256, number = plan.get("sha256") if isinstance(plan, dict) else None, card.get("parameters_after_round")
    return CheckedModel(
        sha256=sha256,
        parameters=sum(spec.size for spec in tensors.specs.values()),
        rounds=number if type(number) is int and 0 <= number < 1 << 31 else None,
        plan_sha256=plan_sha256 if isinstance(plan_sha256, str) and _SHA256.fullmatch(plan_sha256) else None,
    )


def _json_object(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        content = path.read_bytes()
        card = json.loads(content, parse_constant=refuse) if len(content) <= CARD_BYTES else None
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise ModelRefusedError("The model's card is no JSON object.")
    return card


def _explained(error: FedWardError | OSError, folder: Path) -> FedWardError:
    if isinstance(error, FedWardError):
        return error
    code = Code.DISK_FULL if takes_no_more(error) else Code.INTERNAL
    return FedWardError(f"{folder}: {error.strerror}.", code=code)
