"""`relay-supervisor run` with one of several supervisors, against simulators on another address than loopback.

A configuration file may not name APIs over plain HTTP elsewhere than on loopback: there it names loopback.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from msgspec.structs import replace

from relay_common import config_file, log
from relay_common.config import Config
from relay_supervisor.cluster import spreading
from relay_supervisor.commands.run import run

LOOPBACK = "127.0.0.1"


def there(config: Config, host: str) -> Config:
    """The configuration with the simulators at `host`."""
    cloudflare = config.cloudflare
    nests = [
        replace(nest, **{key: getattr(nest, key).replace(LOOPBACK, host) for key in ("api_base_url", "token_url")})
        for nest in config.nest
    ]
    sfu = replace(cloudflare, api_base_url=cloudflare.api_base_url.replace(LOOPBACK, host))
    return replace(config, nest=nests, cloudflare=sfu)


def main() -> None:
    """Run until a signal."""
    file, host, *settled = sys.argv[1:]
    for seconds in settled:  # after which accounts are given up for others that have fewer
        vars(spreading)["SETTLED"] = float(seconds)
    config = there(config_file.load(Path(file), os.environ), host)
    log.configure(config.log.level, config.log.format)
    asyncio.run(run(config, lambda: config))
    log.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
