"""Google's side of the simulation: the SDM API, tokens, quota and streams."""
