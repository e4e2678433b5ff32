"""Codecs and pictures: H.264 passthrough, AAC to Opus, filler while a camera is away, snapshots."""
