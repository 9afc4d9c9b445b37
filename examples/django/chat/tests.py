"""Tests of the application: manage.py test."""

from unittest import mock

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import TestCase, TransactionTestCase

from chat import checkpoints
from checkpoint_sa import SQLAlchemySaver


class ChatTest(TestCase):
    """Checkpoints in memory, new for each test: TestCase can't roll the saver's back."""

    def setUp(self) -> None:
        """Replace the saver."""
        opened = SQLAlchemySaver.from_conn_string("sqlite://")
        self.saver = opened.__enter__()
        self.addCleanup(opened.__exit__, None, None, None)
        self.saver.setup()
        graph = checkpoints.builder.compile(checkpointer=self.saver)
        patch = mock.patch.multiple(checkpoints, saver=lambda: self.saver, graph=lambda: graph)
        patch.start()
        self.addCleanup(patch.stop)
        self.user = get_user_model().objects.create_user("ann")
        self.client.force_login(self.user)

    def say(self, text: str, view: str = "turns") -> str:
        """Take a turn of one thread."""
        return self.client.post(f"/threads/1/{view}", {"text": text}).json()["answer"]

    def test_both_views_share_a_thread(self) -> None:
        self.assertEqual(self.say("one"), "You said: one.")
        self.assertEqual(self.say("two", "turns/async"), "You said: one, two.")

    def test_a_users_threads_go_with_the_user(self) -> None:
        self.say("one")
        with self.captureOnCommitCallbacks(execute=True):
            self.user.delete()
        self.assertEqual(list(self.saver.threads()), [])


class SameDatabaseTest(TransactionTestCase):
    """Checkpoints in the test's database; Django empties its own tables only."""

    def setUp(self) -> None:
        """Make the tables, and empty them at the end."""
        call_command("upgrade_checkpoints", verbosity=0)
        self.addCleanup(checkpoints.engine().dispose)  # otherwise a server can't drop the database
        self.addCleanup(self.empty)

    def empty(self) -> None:
        """Delete all threads."""
        saver = checkpoints.saver()
        saver.prune([thread.thread_id for thread in saver.threads()], strategy="delete")

    def test_a_conversation(self) -> None:
        user = get_user_model().objects.create_user("bob")
        self.client.force_login(user)
        self.client.post("/threads/1/turns", {"text": "one"})
        answer = self.client.post("/threads/1/turns", {"text": "two"}).json()["answer"]
        self.assertEqual(answer, "You said: one, two.")
        user.delete()
        self.assertEqual(list(checkpoints.saver().threads()), [])
