"""The plots of data and results, all drawn without a screen."""
