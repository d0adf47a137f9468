"""The members app."""

from __future__ import annotations

from django.apps import AppConfig


class MembersConfig(AppConfig):
    """Registers the app under the label that its tables carry."""

    name = "appliance.network.members"
    label = "members"
