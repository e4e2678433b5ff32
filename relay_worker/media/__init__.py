"""Media as values: the vocabulary, H.264 passthrough, sound into Opus, access units."""
