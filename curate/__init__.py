"""Choose the data that language models are trained on."""

__version__ = "0.1.0"
