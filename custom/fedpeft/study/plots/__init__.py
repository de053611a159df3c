"""The plots of data and results, all made without a screen."""
