"""Text never leaves: whatever way an approved plan tries to write a record to its researcher, at a real node.

Each way is really gone: what the plan did is seen in the hospital's own record, or in the refusal. All that north tells
alice is read, down to the plain bytes of her update, and is what north's own record says that it told.
"""

from __future__ import annotations

import pytest

from appliance.protocol.errors import Code
from tests.adversarial.hostile import RECORD, Outcome, Ward, plan

FAILED, REFUSED = Code.TRAINING_FAILED, Code.UPDATE_REFUSED

# What the plan does, and the code that alice gets; None: her round is done.
SPOKEN: dict[str, tuple[str, Code | None]] = {
    "exception": ("raise ValueError(RECORD)", FAILED),
    "exception's class": ("raise type(RECORD, (Exception,), {})()", FAILED),
    "exception's module": ("raise type(RECORD, (KeyError,), {'__module__': 'builtins'})()", FAILED),
    "exception's cause": ("raise KeyError(RECORD) from type(RECORD, (OSError,), {})(RECORD)", FAILED),
    "exception's note": ("e = ValueError(); e.add_note(RECORD); raise e", FAILED),
    "exceptions in a group": ("raise ExceptionGroup(RECORD, [ValueError(RECORD)])", FAILED),
    "exit": ("raise SystemExit(RECORD)", FAILED),
    "interrupt": ("raise KeyboardInterrupt(RECORD)", FAILED),
    "error of our own": (
        "from appliance.protocol.errors import FedWardError\nraise FedWardError(RECORD, rule=RECORD, remedy=RECORD)",
        FAILED,
    ),
    "refusal of our own": (
        "from appliance.protocol.errors import Code, FedWardError as E\nraise E(RECORD, code=Code.POLICY_REFUSED)",
        FAILED,
    ),
    "sentence of our own": (
        ("from appliance.training import TrainingFailedError\n"
        "raise TrainingFailedError('The loss is not finite at update 19610203 of 1.') from ValueError(RECORD)"), FAILED,
    ),
    "line of the plan": ("print(RECORD); exec(compile('\\n' * 19610202 + '1 / 0', '<training plan>', 'exec'))", FAILED),
    "function of the plan": ("exec(compile(f'def {RECORD}(): 1 / 0\\n{RECORD}()', '<training plan>', 'exec'))", FAILED),
    "print": ("print(RECORD)", None),
    "standard error": ("import sys; sys.stderr.write(RECORD)", None),
    "descriptor": ("os.write(1, RECORD.encode())", None),
    "log": ("import logging; logging.getLogger(RECORD).error(RECORD)", None),
    "warning": ("import warnings; warnings.warn(RECORD)", None),
}  # fmt: skip

CHANNEL = """
import json
def say(**message):
    text = json.dumps(message).encode()
    os.write(3, len(text).to_bytes(4, "big") + bytes(1) + text)
job_id = next(o.job_id for o in __import__("gc").get_objects() if type(o).__name__ == "TrainJob")
"""
# What the plan puts into what it returns, or writes on the channel of our own code beside it.
RETURNED: dict[str, tuple[dict[str, str], Code | None]] = {
    "metric's name": ({"methods": "def testing_step(self, data, target):\n    return {RECORD: 1.0}"}, REFUSED),
    "many metrics": (
        {"methods": "def testing_step(self, data, target):\n    return {str(n): 1.0 for n in range(60)}"}, REFUSED,
    ),
    "metric's stage": (
        {"attack": "job._tested = lambda *_: Metrics.model_construct(stage=RECORD, samples=1, values={})"}, FAILED,
    ),
    "tensor's name": (
        {"methods": "def get_parameters(self):\n    return {RECORD: super().get_parameters()['bias']}"}, FAILED,
    ),
    "tensor's name, past our code": (
        {"attack": "job.write_update = lambda *_: sealed_memfd('u', tensor_bytes({RECORD: data.numpy()}))"}, REFUSED,
    ),
    "tensor file's header": (
        {"attack": "import safetensors.torch as st\n"
         "job.write_update = lambda t, r: sealed_memfd('u', st.save(self.model().state_dict(), {'note': RECORD}))"},
        REFUSED,
    ),
    "bytes behind the tensors": (
        {"attack": "job.write_update = lambda t, r: sealed_memfd('u', tensor_bytes(t) + RECORD.encode())"}, REFUSED,
    ),
    "memory file's name": (
        {"attack": "job.write_update = lambda t, r: sealed_memfd(RECORD, tensor_bytes(t))"}, None,
    ),
    "progress": (
        {"attack": CHANNEL + "say(kind='progress', job_id=job_id, iteration=1, iterations=2, values={RECORD: 1.0})"},
        REFUSED,
    ),
    "last progress": (
        {"attack": "from appliance.protocol.messages import Reached\n"
         "job.Reached = lambda **_: Reached(iteration=2, iterations=2, epoch=1, values={RECORD: 1.0})"}, REFUSED,
    ),
    "forged failure": (
        {"attack": CHANNEL + "say(kind='crashed', job_id=job_id, code='TRAINING_FAILED', message=RECORD, detail=RECORD,"
         " exception=RECORD)\ntime.sleep(60)"}, FAILED,
    ),
    "forged code": (
        {"attack": CHANNEL + "say(kind='crashed', job_id=job_id, code='PERMISSION_DENIED', message=RECORD)\n"
         "time.sleep(60)"}, FAILED,
    ),
    "answer with a record": (
        {"attack": CHANNEL + "say(kind='failed', job_id=job_id, code='TRAINING_FAILED', message=RECORD)\n"
         "time.sleep(60)"}, FAILED,
    ),
    "another job's id": (
        {"attack": CHANNEL + "say(kind='progress', job_id=RECORD, iteration=1, iterations=2)\ntime.sleep(60)"}, FAILED,
    ),
    "import": ({"top": "raise ImportError(RECORD)"}, Code.PLAN_INVALID),
    "syntax": ({"top": "raise SyntaxError(RECORD, ('<training plan>', 19610203, 1, RECORD))"}, Code.PLAN_INVALID),
}  # fmt: skip


def require_no_record(outcome: Outcome) -> None:
    """Nothing that alice got holds it, and north's record names all that she got."""
    assert not [text for text in outcome.told if RECORD.lower() in text.lower() or "19610203" in text]
    messages = {line["sha256"] for line in outcome.left if line["kind"] not in ("upload", "enclosed")}
    assert messages
    assert messages <= outcome.heard, "north sent what alice did not hear, and this test did not read"


@pytest.mark.parametrize("way", SPOKEN)
def test_what_a_plan_says_stays_at_the_hospital(ward: Ward, way: str) -> None:
    """Staff read it in their record, and decide whether anybody else may."""
    attack, code = SPOKEN[way]
    outcome = ward.run(plan(attack))

    require_no_record(outcome)
    assert outcome.code is code
    assert RECORD in outcome.record


@pytest.mark.parametrize("way", RETURNED)
def test_what_a_plan_returns_holds_no_text(ward: Ward, way: str) -> None:
    """Results are numbers under names that staff have read."""
    parts, code = RETURNED[way]
    arguments = {"num_updates": 2, "log_interval": 1, "test_ratio": 0.2, "test_on_local_updates": True}
    arguments |= {} if "testing_step" in parts.get("methods", "") else {"test_metric": "ACCURACY"}
    outcome = ward.run(plan(**parts), training_args=arguments)

    require_no_record(outcome)
    assert outcome.code is code
    assert outcome.has_update is (code is None)


def test_numbers_of_a_test_and_of_time_have_few_digits(ward: Ward) -> None:
    """A number that nobody looks at to its end has room for a date of birth."""
    hidden = 0.1961020319610203
    attack = (
        "from appliance.protocol.local.jobs import RoundTiming\n"
        f"job.RoundTiming = lambda **_: RoundTiming(start_s={hidden}, train_s={hidden})"
    )
    step = f"def testing_step(self, data, target):\n    return {{'share': {hidden}}}"
    arguments = {"num_updates": 1, "test_ratio": 0.2, "test_on_local_updates": True}
    outcome = ward.run(plan(attack, methods=step), training_args=arguments)

    assert outcome.code is None
    assert outcome.reply.metrics[0].values == {"share": 0.196102}
    assert not [text for text in outcome.told if "19610203" in text]
