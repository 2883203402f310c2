"""A lab for every test that needs the real kernel."""

from collections.abc import Iterator

import pytest

from masque_client.testing.netns import Lab, unavailable_reason


@pytest.fixture
def lab() -> Iterator[Lab]:
    if reason := unavailable_reason():
        pytest.skip(reason)
    with Lab() as lab:
        yield lab
