"""The jobs app."""

from __future__ import annotations

from django.apps import AppConfig


class JobsConfig(AppConfig):
    """Registers the app under the label that its tables carry."""

    name = "appliance.network.jobs"
    label = "jobs"
