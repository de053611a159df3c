"""The command ``fedpeft``: one short file a subcommand."""
