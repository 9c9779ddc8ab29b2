"""Settings of the Django example: no database, since the tasks are Relier's and the results with them."""

from __future__ import annotations

import os

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only for this example")
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "words.urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware", "words.views.RelierErrors"]
