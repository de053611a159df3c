"""Sites that misbehave, for tests alone: only the tests' workspaces allow these classes, and no wheel holds them."""
