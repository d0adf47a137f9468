"""Secure aggregation as pure state machines: bytes in, bytes out; no sockets, no files, no clock.

Empty for now. The messages and the round already have places for it (``protocol.rounds``).
"""
