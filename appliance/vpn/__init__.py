"""Addresses, keys and configuration for the WireGuard network between members.

Hub and spoke: the hub knows every active member, a member knows the hub alone. Nothing here imports another room of
ours, so that it can be used alone; the ``fedward vpn`` commands are its face.
"""
