"""Browsers' views of published cameras: their bounds, and whether they can decode the picture."""
