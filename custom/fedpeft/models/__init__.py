"""The networks, the adapters in them, what trains and what travels. Knows nothing of data, training or FLARE."""
