"""The terminal console and the command line of Pumpdeck."""

__version__ = "0.1.0"
