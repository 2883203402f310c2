"""One HTTP connection that carries many sessions: the asyncio shell over an Engine."""
