"""Healthy: the GUI answers a request for its sign-in page over TLS."""

import http.client
import os
import ssl
from pathlib import Path

port = int(Path(os.environ["FEDWARD_NODE_HOME"], "run/gui.port").read_text())
context = ssl._create_unverified_context()  # on loopback; nothing is sent
connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
connection.request("GET", "/login")
if (status := connection.getresponse().status) >= 400:
    raise SystemExit(f"the GUI answers {status}")
