"""Healthy: the supervisor answers over its socket."""

from pathlib import Path

from appliance.protocol.local.frames import connect
from appliance.protocol.local.jobs import Hello, HelloReply, parse_reply

with connect(Path("/var/lib/fedward/node/run/runner/runner.sock"), timeout_s=5) as channel:
    channel.send(Hello(), timeout_s=5)
    answer = channel.receive(5)
    if answer is None or not isinstance(parse_reply(answer.payload), HelloReply):
        raise SystemExit("the runner does not answer")
