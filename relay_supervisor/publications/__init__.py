"""Publications: which camera is at which SFU session, and who watches it."""
