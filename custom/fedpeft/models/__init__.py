"""Networks, adapters, and the declaration of what trains and travels; no knowledge of data, training or FLARE."""
