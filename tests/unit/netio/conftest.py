"""Both offload kernels, so that one set of tests runs on either."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest


@pytest.fixture(params=["python_kernel", "_compiled"])
def kernel(request: pytest.FixtureRequest) -> ModuleType:
    try:
        return import_module(f"masque_client.netio.offload.{request.param}")
    except ImportError:
        pytest.skip("NEEDS a C compiler at installation: the compiled offload kernel is not tested here")
