"""Django's settings, made from the folder that ``FEDWARD_NETWORK_HOME`` names.

Without that variable the defaults stand in, for tools that only look at the code; ``serve`` always sets it.
"""

from __future__ import annotations

import os
from pathlib import Path

from appliance.network.config import NetworkConfig, database_settings, read_config, secret_key, store_settings
from appliance.network.logs import LOGGING  # noqa: F401 - Django reads it here

_home = os.environ.get("FEDWARD_NETWORK_HOME")

FEDWARD_HOME = Path(_home) if _home else Path()
FEDWARD = read_config(FEDWARD_HOME) if _home else NetworkConfig()

SECRET_KEY = secret_key(FEDWARD_HOME) if _home else ""
DEBUG = False
# The certificate says who we are; no answer is built from the Host header.
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "appliance.network.urls"
WSGI_APPLICATION = "appliance.network.wsgi.application"
APPEND_SLASH = False
USE_TZ = True
USE_I18N = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "rest_framework",
    "drf_spectacular",
    "appliance.network.members",
    "appliance.network.parameters",
    "appliance.network.jobs",
    "appliance.network.audit",
    "appliance.network.presence",
]
MIDDLEWARE = [
    "appliance.network.members.middleware.RegisterMiddleware",
    "appliance.network.audit.middleware.AuditMiddleware",
    "appliance.network.presence.middleware.PresenceMiddleware",
    "django.middleware.security.SecurityMiddleware",
]
DATABASES = {"default": database_settings(FEDWARD.database, FEDWARD_HOME)}
STORAGES = {"parameters": store_settings(FEDWARD.parameters, FEDWARD_HOME)}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["appliance.network.members.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["appliance.network.members.permissions.IsMember"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["appliance.network.parsers.BoundedJsonParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "appliance.network.handlers.answer_error",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "FedWard network host",
    "DESCRIPTION": "Members, parameters, jobs and the audit log. Every error is {code, message, remedy}.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
}
