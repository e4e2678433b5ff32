"""[cluster]: which addresses the bus can be given, and what is said about the others."""

from __future__ import annotations

import msgspec
import pytest

from relay_common import config_file
from relay_common.config import Config
from relay_common.config_cluster import ClusterConfig, bound_endpoints, bus_endpoints, passing_endpoint, peer_endpoint
from relay_common.errors import ConfigError
from relay_supervisor.cameras.worker_spec import bus_ends
from relay_supervisor.fleet.bus_sockets import BusSockets
from relay_supervisor.net import split_listen
from relay_supervisor.operations.reload import compare


def parsed(environ: dict[str, str] | None = None, **cluster: str) -> Config:
    document = {
        "nest": {"project_id": "p", "client_id": "c", "client_secret": "hush", "refresh_token": "1//hush-hush"},
        "cloudflare": {"app_id": "a", "app_secret": "cf-hush"},
        "cluster": cluster,
    }
    return config_file.parse(document, environ if environ is not None else {})


def test_it_is_off_unless_it_is_told_where_to_listen() -> None:
    assert parsed().cluster == ClusterConfig()
    assert bus_endpoints("") is None


@pytest.mark.parametrize(
    ("listen", "control", "stats"),
    [
        ("10.0.0.5:7420", "tcp://10.0.0.5:7420", "tcp://10.0.0.5:7421"),
        ("[fd00::5]:65534", "tcp://[fd00::5]:65534", "tcp://[fd00::5]:65535"),
        ("host:7420", "tcp://host:7420", "tcp://host:7421"),
        ("relay-0.relay.ns.svc:7420", "tcp://relay-0.relay.ns.svc:7420", "tcp://relay-0.relay.ns.svc:7421"),
    ],
)
def test_statistics_have_the_next_port(listen: str, control: str, stats: str) -> None:
    assert bus_endpoints(parsed(bus_listen=listen).cluster.bus_listen) == (control, stats)


def test_a_name_is_looked_up_as_ipv6_where_the_bus_is_reached_by_that() -> None:
    assert bus_endpoints("relay.svc:7420", ipv6=True) == ("tcp://[relay.svc]:7420", "tcp://[relay.svc]:7421")
    assert bus_endpoints("10.0.0.5:7420", ipv6=True) == bus_endpoints("10.0.0.5:7420"), "an address says what it is"
    bound = BusSockets("bus", "tcp://[fd00::5]:7420", "tcp://[fd00::5]:7421")
    cluster = parsed(bus_listen="relay.svc:7420", bus_bind="[fd00::5]:7420").cluster
    assert bus_ends(bound, cluster).stats_endpoint == "tcp://[relay.svc]:7421"


@pytest.mark.parametrize("pod_ip", ["10.0.0.5", "fd00::5"])
def test_the_address_of_a_pod_stands_in_brackets_whatever_it_is(pod_ip: str) -> None:
    """A manifest cannot know which kind it is."""
    cluster = parsed(bus_listen="relay:7420", bus_bind=f"[{pod_ip}]:7420", peer_listen=f"[{pod_ip}]:7422").cluster
    shown = "10.0.0.5" if pod_ip == "10.0.0.5" else "[fd00::5]"
    assert bound_endpoints(cluster) == (f"tcp://{shown}:7420", f"tcp://{shown}:7421")
    assert peer_endpoint(cluster.peer_listen) == f"tcp://{shown}:7422"
    assert passing_endpoint(cluster) == f"{shown}:7423"
    assert split_listen(f"[{pod_ip}]:8081") == (pod_ip, 8081)


def test_the_bus_may_listen_elsewhere_than_workers_connect_to() -> None:
    cluster = parsed(bus_listen="relay:7420", bus_bind="[::]:7430").cluster
    assert bound_endpoints(cluster) == ("tcp://[::]:7430", "tcp://[::]:7431")
    assert bound_endpoints(parsed(bus_listen="relay:7420").cluster) == ("tcp://relay:7420", "tcp://relay:7421")


@pytest.mark.parametrize(
    "listen",
    ["10.0.0.5", "10.0.0.5:", "10.0.0.5:0", "10.0.0.5:65535", "10.0.0.5:70000", "0.0.0.0:7420", "[::]:7420",
     "[::ffff:0.0.0.0]:7420", "[::ffff:224.0.0.1]:7420",
     "10.0.0.256:7420", "host:65535", "host:0", "-host:7420", "a b:7420", "host.:7420",
     "224.0.0.1:7420", ":7420", "7420", "*:7420", "10.0.0.5:7420/x", "tcp://10.0.0.5:7420", "fd00::5"],
)  # fmt: skip
def test_what_no_worker_could_connect_to_is_refused(listen: str) -> None:
    with pytest.raises(ConfigError, match="cluster.bus_listen is .*10.0.0.5:7420"):  # noqa: RUF043
        parsed(bus_listen=listen)


def test_the_environment_sets_it() -> None:
    assert parsed({"RELAY_CLUSTER_BUS_LISTEN": "10.0.0.5:7420"}).cluster.bus_listen == "10.0.0.5:7420"


def test_a_change_needs_a_restart() -> None:
    was, now = parsed(), parsed(bus_listen="10.0.0.5:7420")
    assert compare(was, now).restart == ["cluster.bus_listen"]
    assert compare(was, msgspec.structs.replace(was)).restart == []


@pytest.mark.parametrize(
    ("cluster", "wrong"),
    [
        ({"namespace": "Cameras"}, "cluster.namespace is 'Cameras'; expected lower-case letters"),
        ({"namespace": "a" * 64}, "cluster.namespace is .* at most 63 of them"),
        ({"identity": "-home"}, "cluster.identity is '-home'; expected lower-case letters"),
        ({"identity": ""}, "cluster.identity is ''; expected lower-case letters"),
        ({"identity": "a" * 41}, "cluster.identity is .* at most 40 of them"),
        ({"image": "nest relay"}, "cluster.image is 'nest relay'; expected an image"),
        ({"namespace": "cameras", "image": "i:1"}, "cluster.bus_listen is not set; workers in a cluster"),
        ({"bus_bind": "0.0.0.0:7420"}, "cluster.bus_listen is not set; with cluster.bus_bind"),
        ({"bus_bind": "relay:7420", "bus_listen": "relay:7420"}, "cluster.bus_bind is 'relay:7420'; expected an addr"),
        ({"bus_bind": "0.0.0.0:65535", "bus_listen": "relay:7420"}, "cluster.bus_bind is .*below 65535"),
        ({"replica": "a"}, "cluster.namespace is not set; supervisors that stand by"),
        ({"replica": "A.b"}, "cluster.replica is 'A.b'; expected lower-case letters"),
        ({"peer_listen": "10.0.0.5"}, "cluster.peer_listen is '10.0.0.5'; expected an address"),
        ({"peer_listen": "fd00::5:7422"}, "cluster.peer_listen is 'fd00::5:7422'; expected an address"),
        ({"namespace": "cameras", "bus_listen": "10.0.0.5:7420"}, "cluster.image is not set; workers in a cluster"),
    ],
)
def test_names_that_kubernetes_would_refuse_and_what_is_missing_are_said(cluster: dict[str, str], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        parsed(**cluster)


@pytest.mark.parametrize(
    "more", [{"image": "i:1"}, {"worker_template": "worker.yaml"}, {"image": "i:1", "identity": "b"}]
)
def test_workers_in_a_cluster_need_a_namespace_a_bus_and_an_image(more: dict[str, str]) -> None:
    cluster = parsed(namespace="cameras", bus_listen="10.0.0.5:7420", **more).cluster
    assert (cluster.namespace, cluster.identity) == ("cameras", more.get("identity", "nest-relay"))
