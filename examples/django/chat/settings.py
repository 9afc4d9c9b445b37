"""As little as the example needs."""

import os
from pathlib import Path

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "for-the-example-only")
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "chat.urls"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "chat",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]

FOLDER = Path(os.environ.get("DATABASE_FOLDER", "."))
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": FOLDER / "app.db",
        # A file, which the saver's connections can open too; Django's default is in its memory.
        "TEST": {"NAME": FOLDER / "test.db"},
    }
}
CHECKPOINT_SCHEMA = None  # on PostgreSQL "agents", say, after CREATE SCHEMA agents
