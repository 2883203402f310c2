"""One CA for all tests of this folder: making keys costs more than the tests."""

from __future__ import annotations

import pytest

from masque_client.testing.certificates import CertificateAuthority, Credentials
from tests.unit.pvd.documents import HOST


@pytest.fixture(scope="session")
def credentials(authority: CertificateAuthority) -> Credentials:
    return authority.issue([HOST, "other.example.org"])
