"""The audit app."""

from __future__ import annotations

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Registers the app under the label that its tables carry."""

    name = "appliance.network.audit"
    label = "audit"
