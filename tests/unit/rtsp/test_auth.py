from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay_common.secrets import Secret
from relay_worker.rtsp.auth import Authenticator, parse_challenges


def authenticator(password: str = "Circle of Life", nonce: str = "") -> Authenticator:
    return Authenticator("Mufasa", Secret(password), lambda: nonce)


def test_digest_sha256_example_of_rfc_7616() -> None:
    auth = authenticator(nonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    challenge = (
        'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )
    assert auth.challenge([challenge.format("MD5"), challenge.format("SHA-256")])
    header = auth.authorization("GET", "/dir/index.html")
    assert header is not None
    assert 'response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"' in header
    assert "nc=00000001" in header
    assert "nc=00000002" in (auth.authorization("GET", "/dir/index.html") or "")


def test_digest_md5_example_of_rfc_7616() -> None:
    auth = authenticator(nonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    assert auth.challenge(
        [
            'digest realm="http-auth@example.org",qop="auth",algorithm=MD5,'
            'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"'
        ]
    )
    assert 'response="8ca523f5e9506fed4657c9700eebdbec"' in (auth.authorization("GET", "/dir/index.html") or "")


def test_digest_without_qop_as_in_rfc_2069() -> None:
    auth = Authenticator("admin", Secret("12345"))
    assert auth.challenge(['Digest realm="cam", nonce="abc"'])
    header = auth.authorization("DESCRIBE", "rtsp://cam/")
    # md5(md5("admin:cam:12345") + ":abc:" + md5("DESCRIBE:rtsp://cam/"))
    assert header == (
        'Digest username="admin", realm="cam", nonce="abc", uri="rtsp://cam/", '
        'response="56cde051fc4c6555ceab94d5142ebd1f"'
    )


def test_basic() -> None:
    auth = authenticator("pw")
    assert auth.authorization("GET", "/") is None
    assert auth.challenge(['Basic realm="x"'])
    assert auth.authorization("GET", "/") == "Basic TXVmYXNhOnB3"


def test_digest_is_preferred_to_basic_in_one_field() -> None:
    auth = authenticator()
    assert auth.challenge(['Basic realm="a", Digest realm="b", nonce="n"'])
    assert (auth.authorization("GET", "/") or "").startswith("Digest ")


def test_credentials_are_tried_once_unless_the_nonce_is_stale() -> None:
    auth = authenticator()
    assert auth.challenge(['Digest realm="b", nonce="1"'])
    assert auth.challenge(['Digest realm="b", nonce="2", stale=true'])
    assert 'nonce="2"' in (auth.authorization("GET", "/") or "")
    assert not auth.challenge(['Digest realm="b", nonce="3"'])


def test_challenges_that_cannot_be_answered() -> None:
    assert not authenticator().challenge(["Negotiate abc"])
    assert not authenticator().challenge(['Digest realm="x", nonce="n", algorithm=SHA-512-256'])
    assert not authenticator().challenge([])


@given(st.lists(st.text(max_size=60), max_size=3))
def test_takes_any_text(values: list[str]) -> None:
    parse_challenges(values)
    auth = authenticator()
    if auth.challenge(values):
        assert auth.authorization("GET", "/")
