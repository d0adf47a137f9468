"""A broker that misbehaves: between a member and the real one, it loses, delays, repeats and reorders messages.

It speaks as much MQTT 3.1.1 as it takes to tell one packet from the next. Towards the member it shows the broker's
certificate, towards the broker the member's own.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
from collections import Counter
from contextlib import suppress

from appliance.protocol.home import Endpoint, TlsFiles
from appliance.transport.tls import client_context

PUBLISH = 3
LOST, REPEATED, LATEST_S = 0.1, 0.4, 0.4  # shares of all messages; each takes up to so long, so that they overtake
_HOST = "127.0.0.1"


class Postman:
    """Carries one member's messages, badly.

    Args:
        endpoint: Where the real broker is.
        broker: The broker's own certificate and key.
        member: The member's.
    """

    def __init__(self, endpoint: Endpoint, *, broker: TlsFiles, member: TlsFiles) -> None:
        self._endpoint = endpoint
        self._member = client_context(member)
        self._broker = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._broker.load_cert_chain(broker.certificate, broker.key)
        self._chance = random.Random(0)
        self.did: Counter[str] = Counter()
        self._carried = 0  # messages that came in, in their order
        self._newest: dict[asyncio.StreamWriter, int] = {}
        self._writers: list[asyncio.StreamWriter] = []
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def begin(self, seed: int) -> None:
        """From now on ``seed`` decides the fate of each message."""
        self._chance.seed(seed)
        self.did.clear()

    def close(self) -> None:
        """End all connections."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._connect, _HOST, 0, ssl=self._broker)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()  # whoever carries between them comes to the end of the stream
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    async def _connect(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        try:
            far, to_far = await asyncio.open_connection(_HOST, self._endpoint.broker_port, ssl=self._member)
        except OSError:  # the real one is not there
            to_near.transport.abort()
            return
        if self._over.is_set():
            to_near.transport.abort()
            to_far.transport.abort()
            return
        self._writers += [to_near, to_far]
        with suppress(asyncio.IncompleteReadError, OSError):
            ways = [asyncio.create_task(self._carry(near, to_far)), asyncio.create_task(self._carry(far, to_near))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                for writer in (to_near, to_far):
                    writer.transport.abort()
                await asyncio.gather(to_near.wait_closed(), to_far.wait_closed(), return_exceptions=True)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while True:
            packet = await _packet(source)
            if packet[0] >> 4 != PUBLISH:
                sink.write(packet)
            elif self._chance.random() < LOST:
                self.did["lost"] += 1
            else:
                self._carried += 1
                times = 2 if self._chance.random() < REPEATED else 1
                self.did["repeated"] += times - 1
                for _ in range(times):
                    self._loop.call_later(
                        self._chance.uniform(0, LATEST_S), self._hand_over, sink, packet, self._carried
                    )

    def _hand_over(self, sink: asyncio.StreamWriter, packet: bytes, number: int) -> None:
        if sink.is_closing():
            return
        self.did["reordered"] += number < self._newest.get(sink, 0)
        self._newest[sink] = max(number, self._newest.get(sink, 0))
        sink.write(packet)


async def _packet(source: asyncio.StreamReader) -> bytes:
    """One control packet: a byte for its type, its length in one to four bytes of seven bits, and the rest."""
    head, length = await source.readexactly(1), 0
    for place in range(4):
        head += (byte := await source.readexactly(1))
        length |= (byte[0] & 0x7F) << 7 * place
        if byte[0] < 0x80:
            break
    return head + await source.readexactly(length)
