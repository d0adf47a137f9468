"""Addresses, keys and configuration for the WireGuard network between members.

Empty for now: a consortium on one machine needs no VPN. It knows no other room, so that it can be used alone.
"""
