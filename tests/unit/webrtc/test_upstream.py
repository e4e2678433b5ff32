"""The private members of aiortc, aioice and pylibsrtp that `webrtc/transport.py` stands on.

When one of these fails, upstream has changed: mend transport.py first, then the pins in pyproject.toml.
"""

from __future__ import annotations

import inspect

import aioice.candidate
import aioice.ice
import pylibsrtp
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceGatherer, RTCIceTransport
from aiortc.rtcicetransport import RTCIceParameters
from pylibsrtp import _binding

from relay_worker.webrtc import incoming, protector


def moved(where: object, what: str) -> str:
    return f"{where} no longer has {what}: upstream changed, see relay_worker/webrtc/transport.py"


def test_ice_gathers_on_addresses_that_it_is_given() -> None:
    gatherer = RTCIceGatherer(iceServers=[])
    connection = gatherer._connection
    assert isinstance(connection, aioice.ice.Connection), moved("RTCIceGatherer", "_connection")
    signature = inspect.signature(connection.get_component_candidates)
    assert list(signature.parameters) == ["component", "addresses", "timeout"], moved(
        "aioice Connection", "get_component_candidates(component, addresses, timeout)"
    )
    source = inspect.getsource(aioice.ice.Connection.gather_candidates)
    assert "self.get_component_candidates(component=component, addresses=addresses)" in source
    assert connection.ice_controlling is False
    assert connection._nominated == {}, moved("aioice Connection", "_nominated")
    assert connection._protocols == [], moved("aioice Connection", "_protocols")


def test_a_candidates_priority_can_be_set() -> None:
    signature = inspect.signature(aioice.candidate.candidate_priority)
    assert list(signature.parameters)[2] == "local_pref", moved("aioice candidate_priority", "local_pref")
    assert "local.priority" in inspect.getsource(aioice.ice.candidate_pair_priority)


async def test_dtls_gives_role_and_srtp_sessions() -> None:
    transport = RTCDtlsTransport(RTCIceTransport(RTCIceGatherer(iceServers=[])), [RTCCertificate.generateCertificate()])
    transport._set_role("client")
    assert transport._role == "client", moved("RTCDtlsTransport", "_role")
    assert transport._tx_srtp is None, moved("RTCDtlsTransport", "_tx_srtp")
    assert transport._rx_srtp is None, moved("RTCDtlsTransport", "_rx_srtp")
    assert "self._role ==" in inspect.getsource(RTCDtlsTransport._setup_srtp)


def test_the_remote_lite_flag_is_understood() -> None:
    assert "iceLite" in inspect.signature(RTCIceParameters).parameters, moved("RTCIceParameters", "iceLite")


def test_datagrams_reach_a_method_that_can_be_replaced() -> None:
    assert aioice.ice.StunProtocol.__dictoffset__, moved("StunProtocol", "a dictionary")
    assert list(inspect.signature(aioice.ice.StunProtocol.datagram_received).parameters) == ["self", "data", "addr"]
    assert isinstance(aioice.ice.CandidatePair.remote_addr, property), moved("CandidatePair", "remote_addr")


def test_libsrtp_is_within_reach() -> None:
    session = pylibsrtp.Session()
    assert _binding.ffi.typeof(session._srtp[0]).kind == "pointer", moved("pylibsrtp Session", "_srtp")
    for name, wanted in (("srtp_protect", protector._PROTECT), ("srtp_unprotect", incoming._UNPROTECT)):
        function = _binding.ffi.addressof(_binding.lib, name)
        assert _binding.ffi.getctype(_binding.ffi.typeof(function)) == wanted, moved("pylibsrtp._binding.lib", name)
    assert len(session._cdata) == 1500, "datagrams.c, MOST_PACKET, decrypts as much as pylibsrtp does"
