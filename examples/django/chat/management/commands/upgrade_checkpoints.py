"""manage.py upgrade_checkpoints."""

from django.conf import settings
from django.core.management.base import BaseCommand

from chat import checkpoints
from checkpoint_sa import migrate


class Command(BaseCommand):
    """Bring the tables of the checkpoints to this release's revision."""

    help = "Makes the tables of the checkpoints, or brings them up to date; beside `migrate`."

    def handle(self, *, verbosity: int, **_: object) -> None:
        """Do it, and print the revision."""
        engine, schema = checkpoints.engine(), settings.CHECKPOINT_SCHEMA
        migrate.upgrade(engine, schema=schema)
        if verbosity:
            self.stdout.write(str(migrate.current(engine, schema=schema)))
