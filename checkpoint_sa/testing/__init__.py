"""For tests: databases for pytest's fixtures, and a suite for authors of dialects."""

from checkpoint_sa.testing.store import Store, id_of, thread

__all__ = ["Store", "id_of", "thread"]
