"""Small pictures of what a camera sends, made in a thread of the worker: see `rendition.py`."""
