"""What supervisor and workers share: messages, time, errors, configuration and the simulators."""

from importlib import metadata

try:
    VERSION = metadata.version("nest-relay")
except metadata.PackageNotFoundError:  # run from a source tree that is not installed
    VERSION = "0+unknown"
