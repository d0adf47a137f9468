"""Run on a test host: connect to every TCP port of some addresses, and print the ports that answered in any way.

    python3 scan.py ADDRESS...

A filtered port says nothing at all: one that is open or closed is printed, as JSON: {address: {port: "open"|"closed"}}.
"""

import asyncio
import json
import sys

AT_ONCE = 3000
PATIENCE_S = 1.5


async def look(address: str, port: int, gate: asyncio.Semaphore, found: dict[int, str]) -> None:
    """Note a port that answers."""
    async with gate:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), PATIENCE_S)
        except ConnectionRefusedError:
            found[port] = "closed"
        except OSError:  # a time limit is one, too
            return
        else:
            found[port] = "open"
            writer.close()


async def scan(addresses: list[str]) -> dict[str, dict[int, str]]:
    """All ports of all addresses."""
    gate = asyncio.Semaphore(AT_ONCE)
    found: dict[str, dict[int, str]] = {address: {} for address in addresses}
    for address in addresses:
        await asyncio.gather(*(look(address, port, gate, found[address]) for port in range(1, 65536)))
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(scan(sys.argv[1:]))))
