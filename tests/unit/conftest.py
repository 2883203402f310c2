"""What unit tests of all rooms share."""

from __future__ import annotations

import pytest

from masque_client.testing.certificates import CertificateAuthority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path_factory.mktemp("ca"))
