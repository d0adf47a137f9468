"""The presence app."""

from __future__ import annotations

from django.apps import AppConfig


class PresenceConfig(AppConfig):
    """Registers the app under the label that its tables carry."""

    name = "appliance.network.presence"
    label = "presence"
