"""Sources: one file a data set's own layout, volumes and images alike, behind one registry."""
