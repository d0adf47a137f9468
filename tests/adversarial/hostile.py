"""Plans that were approved and do more than they say, run by a real node; and all that the node tells of them."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors.numpy import load

from appliance.protocol import sealing
from appliance.protocol.envelope import open_envelope
from appliance.protocol.errors import Code
from appliance.protocol.home import MemberHome
from appliance.protocol.keys import b64url, unb64url
from appliance.protocol.messages import ErrorReply, Receipt, SealedFile, Train, TrainReply
from appliance.protocol.tensors import Array, tensor_bytes
from appliance.transport.mqtt import Arrived
from tests.adversarial.post import Person
from tests.hospitals import Hospitals

# What must not leave; no plan's text holds it, nor any of the honest parts.
RECORD = "Zwiebelfisch1961"
SPELT = "''.join(map(chr, " + repr([ord(sign) for sign in RECORD]) + "))"

PLAN = f"""
import os, time
import torch
import appliance.runner.job as job
from appliance.protocol.local.sealed import create_memfd, seal_memfd, sealed_memfd
from appliance.protocol.messages import Metrics
from appliance.protocol.tensors import tensor_bytes
from appliance.training import DataManager, TorchTrainingPlan
RECORD = {SPELT}
#TOP
class Plan(TorchTrainingPlan):
    def init_model(self, model_args):
        return torch.nn.Linear(2, 1)
    def training_data(self):
        return DataManager(self.dataset.matrix(["f0", "f1"]), self.dataset.matrix(["malign"]))
    def training_step(self, data, target):
        self.attack(data)
        return torch.nn.functional.binary_cross_entropy_with_logits(self.model()(data), target)
    def attack(self, data):
        pass
    #METHODS
"""


def plan(attack: str = "pass", *, top: str = "", methods: str = "") -> str:
    """The plan with ``attack`` (statements) in each of its steps."""

    def indented(text: str, by: int) -> str:
        return "\n".join(" " * by + line for line in text.strip("\n").splitlines())

    text = PLAN.replace("#TOP\n", top + "\n").replace("    #METHODS\n", indented(methods, 4) + "\n")
    return text.replace("        pass\n", indented(attack, 8) + "\n")


@dataclass
class Outcome:
    """What a hostile round came to.

    Attributes:
        reply: What alice was told.
        told: Every body that north sent her meanwhile, as JSON text, and her update in plain.
        record: What the plan printed, with its traceback, as the hospital keeps it.
        left: The hospital's own record of what left.
    """

    reply: TrainReply | ErrorReply
    told: list[str]
    record: str
    left: list[dict[str, Any]]
    heard: set[str] = field(default_factory=set)  # SHA-256 of all that came, as it came

    @property
    def code(self) -> Code | None:
        """Of the error, if it is one."""
        return self.reply.code if isinstance(self.reply, ErrorReply) else None

    @property
    def tensors(self) -> dict[str, Array]:
        """What alice got, opened with her key."""
        return load(self.told[-1].encode("latin-1"))

    @property
    def has_update(self) -> bool:
        """Whether anything but messages left."""
        return any(line["kind"] in ("upload", "enclosed") for line in self.left)


class Ward:
    """North, as alice attacks it with plans that its staff approved."""

    def __init__(self, hospitals: Hospitals, alice: Person) -> None:
        self.hospitals = hospitals
        self.alice = alice
        self.register = MemberHome(hospitals.home("north")).register()
        self.dataset_id = str(hospitals.history("north").dataset("cells")["id"])

    def approve(self, text: str) -> str:
        """Staff's mistake, or their trust; returns the plan's hash."""
        self.hospitals.staff("north").call("plan.add", name="hostile", source=text)
        return hashlib.sha256(text.encode()).hexdigest()

    def request(self, text: str, **changes: Any) -> Train:
        """A round of an approved plan, its parameters enclosed."""
        known: dict[str, Any] = {
            "experiment_id": f"exp-{secrets.token_hex(6)}",
            "round": 1,
            "round_limit": 5,
            "dataset_id": self.dataset_id,
            "plan_sha256": self.approve(text),
            "plan_class": "Plan",
            "training_args": {"num_updates": 2, "log_interval": 1},
        }
        known |= changes
        known.setdefault("parameters", self._parameters(known["experiment_id"], known["round"]))
        return Train(**known)

    def send(self, request: Train) -> str:
        """Ask; returns the message's id."""
        signed = self.alice.signer.sign("north", request)
        assert self.alice.send("north", Train.kind, signed.text) == "Success"
        return signed.envelope.jti

    def run(self, text: str, **changes: Any) -> Outcome:
        """One round, from the request to its end."""
        self.alice.post.heard.clear()
        request = self.request(text, **changes)
        return self.outcome(request, self.send(request))

    def outcome(self, request: Train, jti: str) -> Outcome:
        """Wait for a round's end."""
        final = self.alice.post.hear(lambda arrived: self._is_final(arrived, jti))
        envelope = open_envelope(final.payload, self.register, me=self.alice.id)
        reply = envelope.body
        assert isinstance(reply, TrainReply | ErrorReply)
        self.alice.send("north", Receipt.kind, self.alice.signer.sign("north", Receipt(received=envelope.jti)).text)
        self.hospitals.staff("north").call("egress.flush")
        history = self.hospitals.history("north")
        told = [_body(arrived) for arrived in self.alice.post.heard if "/from/north/" in arrived.topic]
        if isinstance(reply, TrainReply) and reply.update is not None:
            told.append(self._update(reply.update, request).decode("latin-1"))
        return Outcome(
            reply,
            told,
            history.record(request.experiment_id, request.round),
            [line for line in history.egress() if line["experiment_id"] == request.experiment_id],
            {hashlib.sha256(arrived.payload).hexdigest() for arrived in self.alice.post.heard},
        )

    def _is_final(self, arrived: Arrived, jti: str) -> bool:
        if arrived.topic.rsplit("/", 1)[-1] not in (TrainReply.kind, ErrorReply.kind):
            return False
        return open_envelope(arrived.payload, self.register, me=self.alice.id).in_reply_to == jti

    def _parameters(self, experiment: str, round_: int) -> SealedFile:
        plain = tensor_bytes({"weight": np.zeros((1, 2), np.float32), "bias": np.zeros(1, np.float32)})
        out = io.BytesIO()
        sealed = sealing.seal(io.BytesIO(plain), out)
        context = f"{experiment}/{round_}/parameters"
        north = self.register.require("north").sealing
        return SealedFile(
            content=b64url(out.getvalue()),
            sha256=sealed.sha256,
            size_bytes=sealed.size_bytes,
            content_key=sealing.seal_key(sealed.content_key, north, context=context),
        )

    def _update(self, update: SealedFile, request: Train) -> bytes:
        context = f"{request.experiment_id}/{request.round}/update/north"
        key = sealing.open_key(update.content_key, self.alice.keys.sealing, context=context)
        plain, content = io.BytesIO(), update.enclosed()
        assert content is not None
        sealing.unseal(sealing.read_chunks(io.BytesIO(content)), key, plain)
        return plain.getvalue()


def _body(arrived: Arrived) -> str:
    """A message's claims, and its topic."""
    payload = arrived.payload.decode().split(".")[1]
    return arrived.topic + json.dumps(json.loads(unb64url(payload)), ensure_ascii=False)
