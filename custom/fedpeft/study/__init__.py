"""What people do with runs: compare settings and methods, evaluate on other data, look at the result."""
