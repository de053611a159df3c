"""The command ``fedpeft``, with a module for each subcommand."""
