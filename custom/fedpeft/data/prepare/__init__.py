"""The one writer of prepared folders, and what comes before it: splits and partitions."""
