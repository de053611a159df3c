"""Studies with runs: compare methods and settings, evaluate and apply finished runs, tabulate and plot results."""
