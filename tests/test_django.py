"""The project of examples/django: its own tests, and a conversation of two processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from databases import bare_store
from sqlalchemy import make_url

from checkpoint_sa import migrate

if TYPE_CHECKING:
    from collections.abc import Callable

    from stores import Store

__all__ = ["bare_store"]

EXAMPLE = Path(__file__).parents[1] / "examples" / "django"
ON_POSTGRESQL = """
from chat.settings import *

DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "{database}",
        "USER": "{username}",
        "HOST": "{host}",
        "PORT": "{port}",
        "TEST": {{"NAME": "bare_django"}},
    }}
}}
"""
DEPLOY = """
from django.core.management import call_command

call_command("migrate", verbosity=0)
call_command("upgrade_checkpoints")
call_command("makemigrations", check=True)
"""
TURN = """
from django.contrib.auth import get_user_model
from django.test import Client

user, _ = get_user_model().objects.get_or_create(username="ann")
client = Client()
client.force_login(user)
for text in {texts}:
    print(client.post("/threads/1/turns", {{"text": text}}).json()["answer"])
"""


@pytest.fixture
def manage(bare_store: Store, tmp_path: Path) -> Callable[..., str]:
    """Run manage.py in a copy of the project, on SQLite or PostgreSQL."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    settings = "chat.settings"
    if bare_store.kind.server:
        url = make_url(bare_store.url).translate_connect_args()
        (tmp_path / "on_postgresql.py").write_text(ON_POSTGRESQL.format(**url))
        settings = "on_postgresql"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "manage.py", *arguments],
            check=False,
            cwd=tmp_path,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": settings, "DATABASE_FOLDER": "."},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


on_both = pytest.mark.parametrize("bare_store", ["sqlite", "pg-psycopg"], indirect=True)


@on_both
def test_its_tests_pass(manage: Callable[..., str]) -> None:
    assert "Ran 3 tests" in manage("test")


@on_both
def test_a_conversation_outlives_its_process(manage: Callable[..., str]) -> None:
    # Each process takes seconds to import Django and LangGraph.
    deployed = manage("shell", "--verbosity", "0", "-c", DEPLOY + TURN.format(texts=["one", "two"]))
    assert deployed.splitlines()[:2] == [migrate.HEAD, "No changes detected"]
    output = manage("shell", "--verbosity", "0", "-c", TURN.format(texts=["three"]))
    assert output.strip() == "You said: one, two, three."
