"""Google's side of the simulation: the SDM API, tokens, quota, streams."""
