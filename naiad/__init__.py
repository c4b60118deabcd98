"""Naiad turns a model file into a secured inference service."""

__version__ = "0.1.0"
