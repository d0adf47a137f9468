"""Healthy: the notebook server answers over TLS."""

import http.client
import ssl

context = ssl._create_unverified_context()  # on loopback; nothing is sent
connection = http.client.HTTPSConnection("127.0.0.1", 8888, timeout=5, context=context)
connection.request("GET", "/api")  # the server's version, which needs no sign-in
if (status := connection.getresponse().status) != 200:
    raise SystemExit(f"the notebook server answers {status}")
