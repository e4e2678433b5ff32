"""Where media goes: publications at the SFU."""
