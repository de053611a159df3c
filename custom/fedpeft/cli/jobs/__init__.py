"""The subcommands of ``fedpeft job`` that talk to a server."""
