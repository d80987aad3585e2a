"""volprep: from raw microscopy volumes to training data."""

__version__ = "0.1.0"
