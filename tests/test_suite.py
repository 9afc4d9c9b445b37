"""The public suite, on every engine."""

from checkpoint_sa.testing.memory import *  # noqa: F403
from checkpoint_sa.testing.suite import *  # noqa: F403
