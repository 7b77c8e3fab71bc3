"""mailbound: sends e-mail activities to those who opted in, and learns from what bounces."""

__version__ = "1.0.0"
