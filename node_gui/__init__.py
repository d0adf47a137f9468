"""The hospital's browser GUI: writes through the warden's governance socket, reads without the right to write.

Empty for now: staff use the ``fedward node`` commands, which go through the same socket.
"""
