"""Every row of the SDM error table leads to the right remedy."""

from __future__ import annotations

import json

import pytest

from relay_common.errors import Remedy
from relay_supervisor.google import errors
from relay_supervisor.google.errors import NestError, RateLimited, error_for, parse_refusal, parse_retry_after

NOT_FOUND_DEVICE = "Device enterprises/p/devices/d not found."


@pytest.mark.parametrize(
    ("http", "word", "message", "verb", "kind", "remedy"),
    [
        (400, "FAILED_PRECONDITION", "not supported for doorbell", "extend", errors.NotExtendable, Remedy.REGENERATE),
        (400, "FAILED_PRECONDITION", "Precondition check failed.", "extend", errors.StreamGone, Remedy.REGENERATE),
        (400, "INVALID_ARGUMENT", "bad", "extend", errors.WrongProtocol, Remedy.SWITCH_PROTOCOL),
        (400, "INVALID_ARGUMENT", "bad", "generate", errors.WrongProtocol, Remedy.SWITCH_PROTOCOL),
        (400, "FAILED_PRECONDITION", "Precondition", "generate", errors.CameraUnavailable, Remedy.RETRY),
        (400, "INVALID_ARGUMENT", "bad", "stop", errors.StreamGone, Remedy.REGENERATE),
        (400, "INVALID_ARGUMENT", "bad", "list", errors.RequestRefused, Remedy.RETRY),
        (401, "UNAUTHENTICATED", "", "extend", errors.Unauthenticated, Remedy.REFRESH_TOKEN),
        (403, "PERMISSION_DENIED", "no", "generate", errors.Forbidden, Remedy.PARK),
        (403, "PERMISSION_DENIED", "it is disabled", "list", errors.ApiDisabled, Remedy.FATAL),
        (404, "NOT_FOUND", NOT_FOUND_DEVICE, "generate", errors.DeviceNotFound, Remedy.PARK),
        (404, "NOT_FOUND", NOT_FOUND_DEVICE, "extend", errors.DeviceNotFound, Remedy.PARK),
        (404, "NOT_FOUND", "Enterprise x not found.", "list", errors.ProjectNotFound, Remedy.FATAL),
        (404, "NOT_FOUND", "Command not found.", "generate", errors.CommandUnknown, Remedy.PARK),
        (404, "NOT_FOUND", "Requested entity was not found.", "extend", errors.StreamGone, Remedy.REGENERATE),
        (404, "NOT_FOUND", "Requested entity was not found.", "generate", errors.DeviceNotFound, Remedy.PARK),
        (409, "ABORTED", "", "generate", errors.Conflict, Remedy.RETRY),
        (429, "RESOURCE_EXHAUSTED", "", "extend", errors.RateLimited, Remedy.HOLD),
        (500, "INTERNAL", "Internal error encountered.", "generate", errors.GoogleServerError, Remedy.RETRY),
        (503, "UNAVAILABLE", "", "extend", errors.GoogleServerError, Remedy.RETRY),
        (504, "DEADLINE_EXCEEDED", "", "extend", errors.GoogleServerError, Remedy.RETRY),
        (418, "", "", "extend", errors.RequestRefused, Remedy.RETRY),
    ],
)
def test_table(http: int, word: str, message: str, verb: str, kind: type[NestError], remedy: Remedy) -> None:
    body = json.dumps({"error": {"code": http, "status": word, "message": message}}).encode()
    error = error_for(parse_refusal(http, body), what="ExtendRtspStream of device …d", verb=verb)
    assert type(error) is kind
    assert error.remedy is remedy
    assert error.status == http
    assert "device …d" in str(error)


@pytest.mark.parametrize(
    ("message", "bucket"),
    [
        ("Rate limited for the ExecuteDeviceCommand API for the user.", "ExecuteDeviceCommand"),
        ("Rate limited for the GenerateWebRtcStream API for the user.", "GenerateWebRtcStream"),
        ("Rate limited for the GenerateCameraEventImage command for the user.", "GenerateCameraEventImage"),
        ("Rate limited for the CAMERA device per hour for the user.", "CAMERA device per hour"),
        ("Slow down", ""),
    ],
)
def test_a_429_names_its_bucket(message: str, bucket: str) -> None:
    body = json.dumps({"error": {"code": 429, "message": message}}).encode()
    error = error_for(parse_refusal(429, body), what="x", verb="extend", retry_after=75.0)
    assert isinstance(error, RateLimited)
    assert (error.bucket, error.retry_after) == (bucket, 75.0)


@pytest.mark.parametrize(("retry_after", "wait"), [(None, "Wait a minute before"), (90.0, "Wait 90 s before")])
def test_a_list_too_many_says_who_shares_the_limit_and_when_to_go_on(retry_after: float | None, wait: str) -> None:
    """Whoever runs `check` for the sixth time in a minute has sent five, and the relay may have sent the others."""
    error = error_for(parse_refusal(429, b""), what="list of devices", verb="list", retry_after=retry_after)
    for words in ("5 such calls (devices.list) a minute", "the project and user as a whole", "running relay", wait):
        assert words in error.hint
    assert error_for(parse_refusal(429, b""), what="x", verb="extend").hint == "", "the relay holds those by itself"


@pytest.mark.parametrize("body", [b"", b"<html>Bad Gateway</html>", b"[1]", b'{"error": "x"}', b"\xff\xfe", b"{}"])
def test_bodies_that_are_not_googles(body: bytes) -> None:
    error = error_for(parse_refusal(502, body), what="x", verb="extend")
    assert isinstance(error, errors.GoogleServerError)
    assert "502" in str(error)


def test_a_long_message_is_read_in_part() -> None:
    refusal = parse_refusal(500, json.dumps({"error": {"status": "X" * 10_000, "message": "a." * 1_000_000}}).encode())
    assert len(str(error_for(refusal, what="x", verb="list"))) < 400


def test_no_secret_is_quoted() -> None:
    message = "bad url rtsps://h/p?auth=g.0.eyJhbGciOi and Bearer ya29.secretsecret " + "x" * 1000
    body = json.dumps({"error": {"message": message}}).encode()
    text = str(error_for(parse_refusal(400, body), what="x", verb="extend"))
    assert "eyJ" not in text
    assert "secretsecret" not in text
    assert len(text) < 400


@pytest.mark.parametrize(
    ("value", "seconds"), [("75", 75.0), ("0", 0.0), ("99999", 3600.0), ("-1", None), ("soon", None), (None, None)]
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_experience_gives_least_waits() -> None:
    assert errors.Conflict("x").retry_after == 30.0
    assert errors.CameraUnavailable("x").retry_after == 30.0
    assert errors.GoogleServerError("x").retry_after is None


@pytest.mark.parametrize("message", [NOT_FOUND_DEVICE, "Requested entity was not found."])
def test_a_device_that_is_not_found_says_where_it_is_shared_again(message: str) -> None:
    refusal = errors.Refusal(404, "NOT_FOUND", message)
    assert "partnerconnections" in str(errors.error_for(refusal, what="Generate", verb="generate"))
