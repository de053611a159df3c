"""What can be added to a backbone: one module a kind of adapter, each of which registers its kinds itself."""
