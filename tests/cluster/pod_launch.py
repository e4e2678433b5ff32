"""From a Pod's specification to what its process is started with: environment, and volumes as folders of files."""

from __future__ import annotations

import os
import re
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.cluster.api import Api, ApiRefused, Json
from tests.cluster.container import Launch, Mount, Security
from tests.cluster.dns import resolv_conf
from tests.cluster.image import Image, image_of

ABSENT_IMAGES: Final = "absent.invalid/"
"""An image whose name begins so cannot be pulled."""


class NotYet(Exception):
    """The container cannot be created now; kubelet tries again. `reason` is one of Kubernetes' own."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class NotPlayed(Exception):
    """The Pod wants what the test kubelet does not have."""


async def pod_launch(
    api: Api, pod: Json, folder: Path, images: dict[str, Json], environment: Mapping[str, str]
) -> Launch:
    """Read what the Pod needs and write its volumes. Raises NotYet and NotPlayed.

    `environment` is what the kubelet itself adds.
    """
    spec, metadata = pod["spec"], pod["metadata"]
    container = _only_container(spec)
    if container["image"].startswith(ABSENT_IMAGES):
        raise NotYet("ImagePullBackOff", f'Back-off pulling image "{container["image"]}"')
    image = image_of(container["image"], images)
    security = _security(spec, container, image)
    content = _Content(api, pod, security.files_group)
    variables = {**image.environment, **environment, "HOSTNAME": metadata["name"]}
    for entry in container.get("env", ()):
        variables[entry["name"]] = _expanded(await content.variable(entry), variables)
    arguments = container.get("args") or ([] if container.get("command") else image.arguments)
    command = [_expanded(word, variables) for word in [*(container.get("command") or image.entrypoint), *arguments]]
    if not command:
        raise NotPlayed("only the relay's image has an entrypoint: every other Pod names a command")
    sources = {volume["name"]: await content.volume(volume, folder) for volume in spec.get("volumes", ())}
    mounts = [Mount(Path(source), place, True) for place, source in image.folders.items()]
    mounts += [
        Mount(sources[mount["name"]] / mount.get("subPath", ""), mount["mountPath"], bool(mount.get("readOnly")))
        for mount in container.get("volumeMounts", ())
    ]
    if spec.get("dnsPolicy", "ClusterFirst") == "ClusterFirst":
        names = folder / "resolv.conf"
        names.write_bytes(resolv_conf(environment["KUBERNETES_SERVICE_HOST"], metadata["namespace"]))
        names.chmod(0o644)
        mounts.append(Mount(names, "/etc/resolv.conf", True))
    where = container.get("workingDir", image.working_directory)
    revealed = Path(sys.base_prefix) if image.folders else None
    return Launch(command, variables, where, metadata["name"], mounts, security, revealed)


def _only_container(spec: Json) -> Json:
    container: Json = spec["containers"][0]
    if len(spec["containers"]) > 1 or spec.get("initContainers"):
        raise NotPlayed("the test kubelet runs one container a Pod")
    if container.get("envFrom") or container.get("lifecycle"):
        raise NotPlayed("the test kubelet has no envFrom and no lifecycle hooks")
    if any(
        "httpGet" not in container.get(f"{kind}Probe", {"httpGet": 0}) for kind in ("startup", "liveness", "readiness")
    ):
        raise NotPlayed("the test kubelet probes over HTTP only")
    return container


def _security(spec: Json, container: Json, image: Image) -> Security:
    """The Pod's security context, the container's, and the image's user, as far as they are played."""
    both = {**(spec.get("securityContext") or {}), **(container.get("securityContext") or {})}
    user = both.get("runAsUser", image.user)
    if both.get("runAsNonRoot") and not user:
        raise NotYet("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")
    return Security(
        user=user or None,
        group=both.get("runAsGroup", image.group),
        files_group=both.get("fsGroup"),
        no_new_privileges=both.get("allowPrivilegeEscalation") is False,
        no_capabilities="ALL" in both.get("capabilities", {}).get("drop", ()),
        read_only_root=bool(both.get("readOnlyRootFilesystem")),
    )


class _Content:
    """What Pods refer to."""

    def __init__(self, api: Api, pod: Json, files_group: int | None) -> None:
        self._api, self._pod, self._files_group = api, pod, files_group
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
        if source := volume.get("persistentVolumeClaim"):
            claim = await self._api.get(f"{self._namespace}/persistentvolumeclaims/{source['claimName']}")
            found = await self._api.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")
            return Path(str(found["spec"]["hostPath"]["path"]))
        if "emptyDir" in volume:
            # Kept when the container starts again.
            place.mkdir(parents=True, exist_ok=True)
            self._own(place, 0o777 if self._files_group is None else 0o2777)
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
            self._own(file, source.get("defaultMode", 0o644))
        return place

    def _own(self, path: Path, mode: int) -> None:
        """A volume's files are its group's, too, where the Pod names one."""
        if self._files_group is not None:
            os.chown(path, 0, self._files_group)
            mode |= 0o040
        path.chmod(mode)

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
