"""The simulated SFU: Cloudflare's session API and a media plane."""
