"""The application."""

from django.apps import AppConfig
from django.conf import settings
from django.db import transaction
from django.db.models import Model
from django.db.models.signals import post_delete


def delete_threads(instance: Model, **_: object) -> None:
    """Delete the threads of a deleted user, once the deletion is committed."""
    from chat import checkpoints  # noqa: PLC0415 - LangGraph isn't needed before

    user_id = instance.pk
    transaction.on_commit(lambda: checkpoints.saver().delete_where({"user_id": user_id}))


class ChatConfig(AppConfig):
    """The application's configuration."""

    name = "chat"

    def ready(self) -> None:
        """Connect the signal."""
        post_delete.connect(delete_threads, sender=settings.AUTH_USER_MODEL)
