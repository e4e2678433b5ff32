"""The part of Kubernetes' API that workers need, through lightkube: the only file that imports it.

Objects are plain JSON, written and read: typed ones would drop what a later version has added, and cannot read
bookmarks ("containers": null).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import httpx2
import yaml
from lightkube import ApiError, AsyncClient, KubeConfig
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError as NoCluster
from lightkube.generic_resource import GenericNamespacedResource, create_global_resource, create_namespaced_resource
from lightkube.types import PatchType

from relay_common.errors import ConfigError
from relay_common.spoken import spoken
from relay_supervisor.fleet.launcher import EngineError
from relay_supervisor.fleet.pods.trust import RenewedContext

PODS: Final = create_namespaced_resource("", "v1", "Pod", "pods")
SECRETS: Final = create_namespaced_resource("", "v1", "Secret", "secrets")
LEASES: Final = create_namespaced_resource("coordination.k8s.io", "v1", "Lease", "leases")
_REVIEWS: Final = create_global_resource(
    "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews"
)
ResourceKind = type[GenericNamespacedResource]
Object = dict[str, Any]

TIMEOUT: Final = 10.0
"""Seconds for an answer."""
WATCHED: Final = 60
"""Seconds after which the server ends a watch, which is then begun anew where it was."""
_LATE: Final = 15.0
"""Seconds longer than that, without a word, after which a watch counts as broken."""
_APART: Final = 1.0
"""Least seconds between the beginnings of two watches: some servers, and proxies before them, end each at once."""
_PROBE: Final = 5
"""Seconds between the kernel's probes of a connection on which nothing comes."""
_UNANSWERED: Final = 15
"""Seconds without an acknowledgement after which it gives a connection up."""
_OPTIONS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _UNANSWERED // _PROBE),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED * 1000),
)
_NOT_ITS_WORDS: Final = (LookupError, TypeError, AttributeError)
"""What lightkube raises for answers that lack a header or are other JSON: those of proxies before the server."""
_GONE: Final = 410
_CONFLICT: Final = 409
_NOT_FOUND: Final = 404


class ApiAway(EngineError):
    """The API server does not answer, or fails: whether it has done what it was asked nobody knows."""


class ApiSilent(ApiAway):
    """Nothing came for too long. Of a watch that may be because nothing has happened."""


class ApiRefused(EngineError):
    """The API server has refused what it was asked. `code` is that of HTTP."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code

    @property
    def absent(self) -> bool:
        """Whether the object does not exist."""
        return self.code == _NOT_FOUND

    @property
    def too_old(self) -> bool:
        """Whether a watch cannot go on from where it was, so that all has to be listed again."""
        return self.code == _GONE


class _Transport(httpx2.AsyncBaseTransport):
    """Asks for bookmarks, which lightkube does not: without them a quiet watch has to list everything again.

    Lightkube begins a watch that has ended anew without a pause, and reads the cluster's certificates once: both are
    made good here.
    """

    def __init__(self, trust: RenewedContext) -> None:
        self._trust, self._present = trust, _secured(trust)
        self._before: httpx2.AsyncHTTPTransport | None = None
        """With the certificates before these: what was under way there ends by itself."""
        self._rested: asyncio.Event | None = None

    async def aclose(self) -> None:
        for one in (self._before, self._present):
            if one is not None:
                await one.aclose()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.params.get("watch") == "true":
            request.url = request.url.copy_set_param("allowWatchBookmarks", "true")
            if self._rested is not None:
                await self._rested.wait()
            self._rested = rested = asyncio.Event()
            asyncio.get_running_loop().call_later(_APART, rested.set)
        if self._trust.renewed():
            last, self._before, self._present = self._before, self._present, _secured(self._trust)
            if last is not None:
                await last.aclose()
        return await self._present.handle_async_request(request)


def _secured(trust: RenewedContext) -> httpx2.AsyncHTTPTransport:
    return httpx2.AsyncHTTPTransport(verify=trust.context, socket_options=_OPTIONS)


def _trust(config: SingleConfig) -> RenewedContext:
    """How the cluster is trusted, by files that may be replaced meanwhile. Raises OSError, NoCluster, ConfigError."""

    def made() -> ssl.SSLContext:
        now = _configuration()
        assert now.user is not None
        return verify_cluster(now.cluster, now.user, now.abs_file)

    assert config.user is not None
    named = (config.cluster.certificate_auth, config.user.client_cert, config.user.client_key)
    files = [config.abs_file(file) for file in named if file] + ([config.fname] if config.fname else [])
    return RenewedContext([str(file) for file in files], made)


def _configuration() -> SingleConfig:
    """What a Pod finds of its cluster, else that of KUBECONFIG or ~/.kube/config."""
    try:
        found = KubeConfig.from_env().get()
    except KeyError as error:
        raise ConfigError(f"cluster.namespace: the cluster's configuration has no {error}", hint=_HINT) from error
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ConfigError("cluster.namespace: the file of KUBECONFIG is no kubeconfig", hint=_HINT) from error
    except (NoCluster, OSError, ValueError) as error:
        raise ConfigError(f"cluster.namespace: no cluster is configured: {error}", hint=_HINT) from error
    if found is None or found.user is None:
        raise ConfigError("cluster.namespace: the kubeconfig has no current context with a user", hint=_HINT)
    return found


_HINT: Final = "Run in a Pod with a service account, or let KUBECONFIG name a kubeconfig"


class ClusterApi:
    """One namespace of the cluster. Methods raise ApiAway and ApiRefused.

    While `may_change` says no, nothing is changed there: ApiAway instead. Raises ConfigError when no cluster is
    configured.
    """

    def __init__(self, namespace: str, may_change: Callable[[], bool] = lambda: True) -> None:
        config = _configuration()
        self.namespace, self.server, self._may_change = namespace, config.cluster.server, may_change
        try:
            transport = _Transport(_trust(config))
            timeout = httpx2.Timeout(TIMEOUT)
            self._client = AsyncClient(config=config, namespace=namespace, timeout=timeout, transport=transport)
        except OSError as error:
            raise ConfigError(f"cluster.namespace: the cluster's certificates cannot be used: {error}") from error
        except NoCluster as error:
            raise ConfigError(f"cluster.namespace: the kubeconfig cannot be used: {error}", hint=_HINT) from error

    async def create(self, kind: ResourceKind, body: Mapping[str, Any], *, dry: bool = False) -> Object:
        """Create an object; with `dry` only ask whether it could be. Returns what the server made of it."""
        client = self._changing()
        return _object(await self._asked(client.create(kind.from_dict(dict(body)), dry_run=dry)))

    async def patch(self, kind: ResourceKind, name: str, change: Mapping[str, Any]) -> Object:
        """Merge a change into an object, whose version it may name; returns what it is then."""
        return _object(await self._asked(self._changing().patch(kind, name, dict(change), patch_type=PatchType.MERGE)))

    async def delete(self, kind: ResourceKind, name: str, grace: int | None = None) -> None:
        """Delete an object, in `grace` seconds (0: at once, without its node); nothing happens when it is gone."""
        try:
            await self._asked(self._changing().delete(kind, name, grace_period=grace))
        except ApiRefused as error:
            # A Pod of the same name that is another one: ours is gone.
            if error.code not in (_NOT_FOUND, _CONFLICT):
                raise

    async def list(self, kind: ResourceKind, labels: dict[str, str], name: str = "") -> tuple[list[Object], str]:
        """All objects with these labels, of that name alone if it is given, and the version where `watch` goes on."""
        fields: dict[str, Any] | None = {"metadata.name": name} if name else None
        listing = self._client.list(kind, labels=dict(labels), fields=fields)

        async def all_of_it() -> list[Object]:
            return [dict(one) async for one in listing]

        found = await self._asked(all_of_it())
        return found, listing.resourceVersion

    async def watch(
        self, kind: ResourceKind, labels: dict[str, str], version: str
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """What happens after `version`: ADDED, MODIFIED, DELETED with the object, BOOKMARK with its version alone.

        Ends only by an error: ApiRefused with `too_old`, ApiAway, or ApiSilent when nothing has happened for long and
        no bookmark came: servers send none before the first event of the kind.
        """
        events = self._client.watch(kind, labels=dict(labels), server_timeout=WATCHED, resource_version=version)
        following = aiter(events)
        while True:
            event, found = await self._asked(anext(following), WATCHED + _LATE)
            yield event, dict(found)

    async def may(self, verb: str, resource: str) -> bool:
        """Whether we may do that to resources of the namespace; their group, if they have one, follows a dot."""
        name, _, group = resource.partition(".")
        attributes = {"namespace": self.namespace, "verb": verb, "resource": name, "group": group}
        review = await self._asked(
            self._client.create(_REVIEWS.from_dict({"spec": {"resourceAttributes": attributes}}))
        )
        return bool((review.get("status") or {}).get("allowed"))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _changing(self) -> AsyncClient:
        if not self._may_change():
            raise ApiAway("the API server has not confirmed who commands, so nothing is changed in the cluster")
        return self._client

    async def _asked(self, call: Any, within: float = TIMEOUT) -> Any:
        """The result of a call, its errors translated."""
        try:
            async with asyncio.timeout(within):
                return await call
        except ApiError as error:
            code, text = error.status.code or 0, error.status.message or "no reason given"
            raise _translated(code, text) from error
        except httpx2.HTTPStatusError as error:
            raise _translated(error.response.status_code, error.response.reason_phrase) from error
        except TimeoutError as error:
            raise ApiSilent(f"the cluster's API server did not answer within {within:.0f} s") from error
        except httpx2.TimeoutException as error:  # its words differ each time
            raise ApiAway("the cluster's API server does not answer in time") from error
        except (httpx2.HTTPError, NoCluster, OSError, ValueError) as error:
            raise ApiAway(f"the cluster's API server does not answer: {spoken(error)}") from error
        except _NOT_ITS_WORDS as error:
            raise ApiAway("what answers is not the cluster's API server, or one that fails") from error


def _object(found: Any) -> Object:
    """What the server made of an object; raises ApiAway where it says nothing of the kind."""
    if not isinstance(found.get("metadata"), dict):
        raise ApiAway("the cluster's API server answers without the object")
    return dict(found)


def _translated(code: int, text: str) -> OSError:
    # 429: it is overloaded. A 401 comes here after lightkube has read the token's file once more.
    if code >= 500 or code in (0, 429):
        return ApiAway(f"the cluster's API server fails: {text}")
    return ApiRefused(f"the cluster refuses it: {text}", code)
