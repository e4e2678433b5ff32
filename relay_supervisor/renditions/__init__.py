"""Renditions: which cameras' workers make a smaller picture, for whom, and for how much CPU."""
