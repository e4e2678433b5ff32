"""The supervisor: every secret, every decision, every call to Google and Cloudflare."""
