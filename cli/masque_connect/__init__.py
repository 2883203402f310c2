"""The masque-connect command."""
