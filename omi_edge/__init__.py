"""omi-edge: a fully local memory for the wearer of an Omi pendant."""

__version__ = "0.1.0"
