"""What cannot be deployed as replicas is refused."""

from pathlib import Path

import pytest

from app.cluster.deployment import Replicas
from app.cluster.requirements import require_shareable
from app.settings import Settings
from flows.fastflow.ray_connection import ClusterError
from tests.support.postgres import Postgres


def test_range_of_replicas_is_parsed() -> None:
    assert Replicas.parse("2:8") == (2, 8)
    assert Replicas.parse("3") == (3, 3)


@pytest.mark.parametrize("text", ["", "0:2", "3:2", "two", "1:2:3"])
def test_other_range_is_refused(text: str) -> None:
    with pytest.raises(ClusterError, match="--replicas must be MIN:MAX"):
        Replicas.parse(text)


def test_replicas_need_a_store() -> None:
    with pytest.raises(ClusterError, match="set FLOWGAUGE_DATABASE and FLOWGAUGE_STORE"):
        require_shareable(Settings())


def test_replicas_need_keys(tmp_path: Path, postgres: Postgres) -> None:
    with postgres.database() as url:
        settings = Settings(database=url, store=f"file://{tmp_path}", allow_unauthenticated_network=True)
        with pytest.raises(ClusterError, match="a cluster needs keys: flowgauge keys create"):
            require_shareable(settings)
