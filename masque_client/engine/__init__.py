"""HTTP carriers as values. This is the one place where a concrete engine is picked; above it there is only `Engine`."""

from __future__ import annotations

from importlib.util import find_spec

from masque_client.engine.interface import Engine, EngineConfiguration, EngineName
from masque_client.errors import ConfigurationError

__all__ = ["available_engines", "create_client_engine", "create_server_engine", "resolve_engine"]


def available_engines() -> tuple[EngineName, ...]:
    """The engines that can be imported here, the one that `AUTO` takes first."""
    return (EngineName.QH3, EngineName.AIOQUIC) if find_spec("qh3") is not None else (EngineName.AIOQUIC,)


def resolve_engine(name: EngineName) -> EngineName:
    """Turn `AUTO` into the engine it stands for.

    Raises:
        ConfigurationError: the named engine is not installed.
    """
    available = available_engines()
    if name is EngineName.AUTO:
        return available[0]
    if name not in available:
        raise ConfigurationError(
            f"the engine {name} is not installed", hint="install it with: pip install 'masque-connect[fast]'"
        )
    return name


def create_client_engine(name: EngineName, configuration: EngineConfiguration) -> Engine:
    """A connection that has not started: call `connect` next.

    Raises:
        ConfigurationError: the engine is not installed, or a certificate file cannot be used.
    """
    if resolve_engine(name) is EngineName.QH3:
        from masque_client.engine.qh3_engine import Qh3Engine

        return Qh3Engine(configuration)
    from masque_client.engine.aioquic_engine import AioquicEngine

    return AioquicEngine(configuration)


def create_server_engine(
    name: EngineName, configuration: EngineConfiguration, *, original_destination_connection_id: bytes
) -> Engine:
    """The server side of one connection: feed it the client's first Initial with `receive_datagrams`.

    Args:
        name: which engine.
        configuration: with `is_client=False`.
        original_destination_connection_id: the Destination Connection ID of that Initial.

    Raises:
        ConfigurationError: the engine is not installed, a certificate file cannot be used, or the engine cannot
            verify client certificates though `tls.ca_file` asks for it.
    """
    if resolve_engine(name) is EngineName.QH3:
        from masque_client.engine.qh3_engine import Qh3Engine

        return Qh3Engine(configuration, original_destination_connection_id=original_destination_connection_id)
    from masque_client.engine.aioquic_engine import AioquicEngine

    return AioquicEngine(configuration, original_destination_connection_id=original_destination_connection_id)
