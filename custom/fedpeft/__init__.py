"""fedpeft: hospitals fine-tune one foundation model together and exchange a few megabytes of adapters."""

__version__ = "0.1.0"
