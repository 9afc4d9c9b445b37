"""The public suite, and LangGraph's, against a node of each cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import stores
from conftest import DRIVERS
from test_conformance import test_conforms, test_every_capability_is_detected  # noqa: F401

from checkpoint_sa.testing.memory import *  # noqa: F403
from checkpoint_sa.testing.suite import *  # noqa: F403

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusters import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=["sync", "async"])
def migrated_store(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[stores.Store]:
    """A store on the node that takes writes."""
    name = "patroni" if cluster.kind == "Patroni" else "mysql"
    kind = stores.KINDS[DRIVERS[name][request.param]]
    cluster.wait()
    store = stores.Store(kind, cluster.url(kind.driver, cluster.primary()))
    store.setup()
    yield store
    store.close()
