"""checkpoint_sa on dqlite: all of the suite."""

from checkpoint_sa.testing.memory import *  # noqa: F403
from checkpoint_sa.testing.suite import *  # noqa: F403
