"""The publishing side: one publication at the SFU, its pacer, sender and filler."""
