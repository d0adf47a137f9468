"""knock.py ADDRESS PORT EXPECTED: open | refused | filtered. Exit code 1, and what it is, if it is not as expected."""

import socket
import sys

address, port, expected = sys.argv[1], int(sys.argv[2]), sys.argv[3]
try:
    socket.create_connection((address, port), timeout=1.5).close()
    found = "open"
except ConnectionRefusedError:
    found = "refused"
except OSError as error:
    found = "filtered" if isinstance(error, TimeoutError) else str(error)
sys.exit(None if found == expected else f"{address}:{port} is {found}, not {expected}")
