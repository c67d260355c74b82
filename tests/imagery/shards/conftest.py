"""The made event that most tests of shards map."""

import pytest

from tests.imagery.shards.making import Event, make_event


@pytest.fixture(scope="module")
def event(tmp_path_factory: pytest.TempPathFactory) -> Event:
    return make_event(tmp_path_factory.mktemp("event"))
