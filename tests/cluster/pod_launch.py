"""From a Pod's specification to what its process is started with: environment, and volumes as folders of files."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.cluster.api import Api, ApiRefused, Json
from tests.cluster.container import Launch, Mount

ABSENT_IMAGES: Final = "absent.invalid/"
"""An image whose name begins so cannot be pulled; every other one is this machine, as it is."""


class NotYet(Exception):
    """The container cannot be created now; kubelet tries again. `reason` is one of Kubernetes' own."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class NotPlayed(Exception):
    """The Pod wants what the test kubelet does not have."""


async def pod_launch(api: Api, pod: Json, folder: Path, image_environment: Mapping[str, str]) -> Launch:
    """Read what the Pod needs and write its volumes. Raises NotYet and NotPlayed."""
    spec, metadata = pod["spec"], pod["metadata"]
    if len(spec["containers"]) > 1 or spec.get("initContainers"):
        raise NotPlayed("the test kubelet runs one container a Pod")
    container = spec["containers"][0]
    if container["image"].startswith(ABSENT_IMAGES):
        raise NotYet("ImagePullBackOff", f'Back-off pulling image "{container["image"]}"')
    content = _Content(api, pod)
    environment = {**image_environment, "HOSTNAME": metadata["name"]}
    for entry in container.get("env", ()):
        environment[entry["name"]] = _expanded(await content.variable(entry), environment)
    if container.get("envFrom"):
        raise NotPlayed("the test kubelet has no envFrom")
    command = [_expanded(word, environment) for key in ("command", "args") for word in container.get(key, ())]
    if not container.get("command"):
        raise NotPlayed("the test kubelet has no images, so it takes a command")
    sources = {volume["name"]: await content.volume(volume, folder) for volume in spec.get("volumes", ())}
    mounts = [
        Mount(sources[mount["name"]] / mount.get("subPath", ""), mount["mountPath"], bool(mount.get("readOnly")))
        for mount in container.get("volumeMounts", ())
    ]
    return Launch(command, environment, container.get("workingDir", "/"), metadata["name"], mounts)


class _Content:
    """What Pods refer to."""

    def __init__(self, api: Api, pod: Json) -> None:
        self._api, self._pod = api, pod
        self._namespace = f"/api/v1/namespaces/{pod['metadata']['namespace']}"

    async def variable(self, entry: Json) -> str:
        """The value of an environment variable."""
        source = entry.get("valueFrom")
        if source is None:
            return str(entry.get("value", ""))
        if "fieldRef" in source:
            return self._field(source["fieldRef"]["fieldPath"])
        for kind in ("secret", "configMap"):
            if reference := source.get(f"{kind}KeyRef"):
                data = await self._data(kind, reference["name"], reference, "CreateContainerConfigError")
                if reference["key"] in data:
                    return data[reference["key"]].decode()
                if reference.get("optional"):
                    return ""
                message = f"couldn't find key {reference['key']} in {kind} {reference['name']}"
                raise NotYet("CreateContainerConfigError", message)
        raise NotPlayed(f"the test kubelet has no variables from {', '.join(source)}")

    async def volume(self, volume: Json, folder: Path) -> Path:
        """The folder or file that holds a volume."""
        place = folder / "volumes" / str(volume["name"])
        if host := volume.get("hostPath"):
            return Path(str(host["path"]))
        if "emptyDir" in volume:
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(0o777)
            return place
        if source := volume.get("secret"):
            data = await self._data("secret", source["secretName"], source, "ContainerCreating")
            files = _items(source, data)
        elif source := volume.get("configMap"):
            files = _items(source, await self._data("configMap", source["name"], source, "ContainerCreating"))
        elif source := volume.get("downwardAPI"):
            entries = source.get("items", ())
            files = iter([(item["path"], self._field(item["fieldRef"]["fieldPath"]).encode()) for item in entries])
        else:
            raise NotPlayed(f"the test kubelet has no volumes of the kind {', '.join(set(volume) - {'name'})}")
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files:
            file = place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_bytes(content)
            file.chmod(source.get("defaultMode", 0o644))
        return place

    async def _data(self, kind: str, name: str, reference: Json, waiting: str) -> dict[str, bytes]:
        try:
            found = await self._api.get(f"{self._namespace}/{kind.lower()}s/{name}")
        except ApiRefused as error:
            if reference.get("optional") and error.code == 404:
                return {}
            # The Node authorizer answers 403 for what is not there, or not yet known to be this Pod's.
            raise NotYet(waiting, f'MountVolume.SetUp failed: {kind} "{name}" not found') from error
        decode: Callable[[str], bytes] = b64decode if kind == "secret" else str.encode
        return {key: decode(value) for key, value in (found.get("data") or {}).items()}

    def _field(self, path: str) -> str:
        metadata, spec, status = (self._pod.get(key, {}) for key in ("metadata", "spec", "status"))
        plain = {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata["namespace"],
            "metadata.uid": metadata["uid"],
            "spec.nodeName": spec["nodeName"],
            "spec.serviceAccountName": spec.get("serviceAccountName", ""),
            "status.hostIP": status.get("hostIP", ""),
            "status.podIP": status.get("podIP", ""),
        }
        if path in plain:
            return str(plain[path])
        if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
            return str(metadata.get(found[1], {}).get(found[2], ""))
        raise NotPlayed(f"the test kubelet does not know the field {path}")


def _items(source: Json, data: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """File by file what a volume of keys holds."""
    if not source.get("items"):
        yield from data.items()
    for item in source.get("items", ()):
        if item["key"] not in data:
            raise NotYet("ContainerCreating", f"MountVolume.SetUp failed: references non-existent key: {item['key']}")
        yield item["path"], data[item["key"]]


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    """`$(NAME)` replaced where there is such a variable, as Kubernetes does; `$$` stands for one `$`."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else environment.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([\w.-]+)\)", value, text)
