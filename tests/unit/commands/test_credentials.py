"""The values of Google's set-up are told apart by their form, and a pasted address gives its code."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import pytest
from click.testing import CliRunner

from relay_common.errors import RelayError
from relay_common.secrets import Secret
from relay_supervisor.commands.cli import cli
from relay_supervisor.google import grant
from relay_supervisor.google.credentials import (
    client_id_problem,
    client_secret_problem,
    exchange,
    find_code,
    project_id_problem,
)

UUID = "5cd39b4c-0000-4000-8000-51a1a7edf00d"
CLIENT = "123456789012-abcdef0123456789.apps.googleusercontent.com"
SECRET = "GOCSPX-0123456789abcdefghijklmnopqr"


@pytest.mark.parametrize(
    ("problem", "value", "words"),
    [
        (project_id_problem, UUID, ""),
        (project_id_problem, "123456789012", "number of a Google Cloud project"),
        (project_id_problem, "my-home-cameras", "id of a Google Cloud project"),
        (project_id_problem, CLIENT, "OAuth client id"),
        (project_id_problem, f"enterprises/{UUID}", "Leave out"),
        (project_id_problem, "", "not a UUID"),
        (client_id_problem, CLIENT, ""),
        (client_id_problem, UUID, "Device Access project id"),
        (client_id_problem, SECRET, "client secret"),
        (client_id_problem, "123456789012", "ends in .apps"),
        (client_secret_problem, SECRET, ""),
        (client_secret_problem, "abcdefghijklmnopqrstuvwx", ""),
        (client_secret_problem, "1//0refresh", "refresh token"),
        (client_secret_problem, "4/0Acode", "authorisation code"),
        (client_secret_problem, CLIENT, "client id"),
        (client_secret_problem, "secret", "begins with GOCSPX-"),
    ],
)
def test_forms(problem: object, value: str, words: str) -> None:
    said = problem(value)  # type: ignore[operator]
    assert words in said if words else said == ""


@pytest.mark.parametrize(
    "pasted",
    [
        "https://www.google.com/?code=4/0AbC-d_e&scope=https://www.googleapis.com/auth/sdm.service",
        "https://www.google.com/?state=x&code=4%2F0AbC-d_e",
        "  4/0AbC-d_e\n",
        "4%2F0AbC-d_e",
        "code=4/0AbC-d_e",
    ],
)
def test_a_code_is_found(pasted: str) -> None:
    assert find_code(pasted).reveal() == "4/0AbC-d_e"


@pytest.mark.parametrize(
    ("pasted", "words"),
    [
        ("https://www.google.com/?error=access_denied", "did not grant"),
        (f"https://nestservices.google.com/partnerconnections/{UUID}/auth?x=y", "go through to the end"),
        ("https://www.google.com/", "no code"),
        ("what?", "neither"),
    ],
)
def test_what_holds_no_code_says_so(pasted: str, words: str) -> None:
    with pytest.raises(RelayError, match=words):
        find_code(pasted)


def _exchange(status: int, body: object, seen: list[httpx.Request] | None = None) -> Secret:
    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        return httpx.Response(status, json=body) if not isinstance(body, str) else httpx.Response(status, text=body)

    return exchange(
        Secret("4/0code"),
        client_id=CLIENT,
        client_secret=Secret(SECRET),
        token_url="https://example.com/token",
        transport=httpx.MockTransport(answer),
    )


def test_a_code_is_exchanged_with_the_redirect_uri_it_was_made_for() -> None:
    seen: list[httpx.Request] = []
    token = _exchange(200, {"access_token": "ya29.x", "refresh_token": "1//0new", "expires_in": 3599}, seen)
    assert token.reveal() == "1//0new"
    form = parse_qs(seen[0].content.decode())
    assert form["grant_type"] == ["authorization_code"]
    assert form["redirect_uri"] == ["https://www.google.com"]
    assert form["client_secret"] == [SECRET]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, {"error": "invalid_grant", "error_description": "Malformed auth code."}, "works once"),
        (400, {"error": "redirect_uri_mismatch"}, "authorised redirect URIs"),
        (401, {"error": "invalid_client"}, "do not belong together"),
        (200, {"access_token": "ya29.x"}, "no refresh token"),
        (502, "<html>", "not answer with JSON"),
        (400, {"error": SECRET}, "refused"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, body: object, words: str) -> None:
    with pytest.raises(RelayError, match=words) as error:
        _exchange(status, body)
    assert SECRET not in str(error.value)


def test_the_age_of_a_token_of_an_unpublished_screen_is_warned_of(tmp_path: Path) -> None:
    now = time.time()
    grant.remember(tmp_path, Secret("1//0testing"), now, published=False)
    grant.remember(tmp_path, Secret("1//0published"), now, published=True)
    testing, published = (grant.recall(tmp_path, Secret(f"1//0{which}")) for which in ("testing", "published"))
    assert grant.warning(testing, now + 4.9 * 86400) == ""
    assert "about 36 hours" in grant.warning(testing, now + 5.5 * 86400)
    assert "expired" in grant.warning(testing, now + 8 * 86400)
    assert grant.warning(published, now + 30 * 86400) == ""
    assert grant.recall(tmp_path, Secret("1//0another")) is None
    assert "1//0" not in (tmp_path / grant.FILE).read_text()
    (tmp_path / grant.FILE).write_text("broken")
    assert grant.recall(tmp_path, Secret("1//0testing")) is None


@pytest.mark.parametrize("option", ["--api-base-url", "--token-url"])
def test_no_secret_is_sent_where_it_can_be_overheard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """As `run` refuses it, but before the client secret and the code have left."""

    def sent(*args: object, **given: object) -> Secret:
        raise AssertionError(given)

    monkeypatch.setattr("relay_supervisor.google.credentials.exchange", sent)
    config = tmp_path / "relay.toml"
    given = ["auth", "--config", str(config), "--published", "--code", "4/0Acode", option, "http://192.0.2.7/token"]
    ids = ["--project-id", UUID, "--client-id", CLIENT]
    result = CliRunner().invoke(cli, [*given, *ids], env={"RELAY_NEST_CLIENT_SECRET": SECRET})
    assert (result.exit_code, config.exists()) == (2, False)
    assert "must begin with https://" in result.output
