"""Client of Google's Smart Device Management (SDM) API: tokens, devices, stream commands, typed errors."""
