"""Healthy: the REST service answers over its socket. Without a member's certificate it says no more than that."""

import http.client
import socket

with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
    sock.settimeout(5)
    sock.connect("/run/fedward-network/rest.sock")
    connection = http.client.HTTPConnection("localhost")
    connection.sock = sock
    connection.request("GET", "/api/v1/health")
    if (status := connection.getresponse().status) >= 500:
        raise SystemExit(f"the REST service answers {status}")
