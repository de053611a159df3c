"""SAM, the adapters in it, what trains and what travels. Knows nothing of data, training or FLARE."""
