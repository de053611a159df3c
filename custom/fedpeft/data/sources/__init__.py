"""Sources of data sets, volumes and images: one file per layout, all in one registry."""
