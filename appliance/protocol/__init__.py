"""What members say to each other: signed envelopes, messages, topics, sealed and tensor files, error codes.

It imports no other room, for every other room rests on it.
"""
