"""The parameters app."""

from __future__ import annotations

from django.apps import AppConfig


class ParametersConfig(AppConfig):
    """Registers the app under the label that its tables carry."""

    name = "appliance.network.parameters"
    label = "parameters"
