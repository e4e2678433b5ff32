"""The configuration: defaults, overrides, secrets in files, and errors that name key, value and fix."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from relay_common import config_environment, config_file
from relay_common.config import IceServer, PathsConfig
from relay_common.errors import ConfigError
from relay_common.secrets import Secret, others_may_read


def document(**sections: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "nest": {"project_id": "p", "client_id": "c", "client_secret": "nest-hush", "refresh_token": "1//hush-hush"},
        "cloudflare": {"app_id": "a", "app_secret": "cf-hush"},
    }
    return base | sections


def problems(doc: dict[str, Any], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        config_file.parse(doc, environ or {})
    return str(caught.value)


def test_defaults_are_googles_and_cloudflares() -> None:
    config = config_file.parse(document())
    assert config.nest[0].api_base_url == "https://smartdevicemanagement.googleapis.com/v1"
    assert config.limits.commands_per_minute == 10
    assert config.http.listen == "127.0.0.1:8080"
    assert config.cameras.included("Front Door", "device-1")


def test_secrets_do_not_print() -> None:
    text = repr(config_file.parse(document()))
    assert "hush" not in text
    assert config_file.parse(document()).cloudflare.app_secret == Secret("cf-hush")


def test_a_variable_that_is_no_key_is_taken_out_of_the_environment() -> None:
    kept = {"RELAY_HTTP_LISTEN": "x", "RELAY_CONFIG": "x", "HOME": "x", "RELAYED": "x"}
    dropped = dict.fromkeys(("RELAY_CLOUDFLARE_APP_SECRT", "RELAY_STREAM_URL", "RELAY_SERVICE_HOST"), "x")
    config_environment.drop_unknown(environ := kept | dropped)
    assert environ == kept


def test_unknown_keys_suggest_the_right_one() -> None:
    text = problems(document(rtsp={"conect_timeout": 3}, htpp={"listen": "x"}))
    assert "rtsp.conect_timeout is not a key. Did you mean connect_timeout?" in text
    assert "[htpp] is not a section. Did you mean http?" in text


def test_a_key_that_leaves_cameras_out_is_not_taken_for_its_contrary() -> None:
    text = problems(document(cameras={"exclude": ["Garage"]}))
    assert 'cameras.exclude is not a key. A camera is left out by [cameras."NAME"] with enabled = false' in text


def test_a_variable_sets_the_first_of_several_tables_and_is_named_for_no_other() -> None:
    one = document()["nest"]
    text = problems(document(nest=[one | {"client_id": 1}, {"client_id": "c"}]))
    assert "nest[1].project_id is missing" in text
    assert "RELAY_NEST_PROJECT_ID" not in text
    assert "(project_id = …, or RELAY_NEST_PROJECT_ID)" in problems(document(nest={}))


def test_what_an_editor_of_windows_writes_before_the_text_is_no_part_of_it(tmp_path: Path) -> None:
    """Notepad saves "UTF-8 with BOM": the first line could not be read, and a secret was wrong by a letter unseen."""
    (tmp_path / "secret").write_text("GOCSPX-hush\r\n", "utf-8-sig")
    nest = 'project_id = "p"\r\nclient_id = "c"\r\nclient_secret_file = "secret"\r\nrefresh_token = "1//hush-hush"'
    text = f'[nest]\r\n{nest}\r\n[local]\r\nlisten = "127.0.0.1"\r\n'
    (file := tmp_path / "relay.toml").write_text(text, "utf-8-sig")
    assert config_file.load(file, {}).nest[0].client_secret == Secret("GOCSPX-hush")
    file.write_text('[http]\nlisten = "127.0.0.1:8090"\n[nest\n', "utf-8-sig")
    assert config_file.salvage_interface(file, {})[1].listen == "127.0.0.1:8090"


@pytest.mark.parametrize("secret", ["", "nobody/has/this/file"])
def test_without_cloudflare_what_a_unit_says_of_its_secret_is_no_mistake(tmp_path: Path, secret: str) -> None:
    """deploy/ names the secret's file in any case: who watches at home had to have one, and an app id."""
    empty = tmp_path / "app_secret"
    empty.touch()
    unit = {"RELAY_CLOUDFLARE_APP_SECRET_FILE": secret or str(empty)}
    at_home = {"nest": document()["nest"], "local": {"listen": "127.0.0.1"}}
    for given in ({}, {"app_id": ""}):
        assert not config_file.parse(at_home | {"cloudflare": given}, dict(unit)).cloudflare.used
    text = problems(at_home | {"cloudflare": {"app_id": "a"}}, dict(unit))
    assert "environment variable RELAY_CLOUDFLARE_APP_SECRET_FILE: cloudflare.app_secret_file: " in text
    text = problems({"nest": document()["nest"]}, {"RELAY_CLOUDFLARE_APP_SECRET": "hush"})
    assert 'or RELAY_CLOUDFLARE_APP_ID); or, to watch without an account, write listen = "127.0.0.1"' in text


def test_wrong_types_name_key_value_and_expectation() -> None:
    text = problems(
        document(
            rtsp={"connect_timeout": "ten"},
            log={"level": "loud"},
            cameras={"include": 5, "Front Door": {"enabled": "yes"}},
        )
    )
    assert "rtsp.connect_timeout is a string 'ten'; expected a number" in text
    assert 'log.level is a string \'loud\'; expected one of "debug", "info", "warning", "error"' in text
    assert 'cameras.include is an integer 5; expected "all" or an array of display names' in text
    assert "cameras.\"Front Door\".enabled is a string 'yes'; expected true or false" in text


@pytest.mark.parametrize(
    ("section", "key", "value", "fix"),
    [
        ("rtsp", "read_timeout", "30", "read_timeout = 30.0"),
        ("workers", "memory_limit_mb", "200", "memory_limit_mb = 200"),
        ("cloudflare", "ice_servers", "stun:host", 'ice_servers = ["stun:host"]'),
        ("log", "level", "Debug", 'level = "debug"'),
        ("otel", "traces", "yes", "traces = true"),
        (
            "nest",
            "project_id",
            5,
            "the Device Access project id (a UUID) from console",
        ),
        ("cloudflare", "app_id", 5, 'app_id = "5"'),
        ("rtsp", "ca_file", 5, 'ca_file = "", the default'),
        ("cluster", "bus_listen", 7420, 'bus_listen = "10.0.0.5:7420", for example'),
        ("http", "trusted_proxies", "proxy", 'trusted_proxies = ["127.0.0.1"], for example'),
        ("http", "trusted_proxies", "192.168.1.7", 'trusted_proxies = ["192.168.1.7"]'),
        ("http", "listen", 8080, 'listen = "127.0.0.1:8080", the default'),
        ("rtsp", "connect_timeout", "ten", "connect_timeout = 10.0, the default"),
        ("limits", "commands_per_minute", 0, "commands_per_minute = 10, the default"),
        ("cameras", "include", 5, 'include = "all", the default'),
        ("log", "format", "loud", 'format = "console", the default'),
    ],
)
def test_a_wrong_value_comes_with_the_line_to_write(section: str, key: str, value: object, fix: str) -> None:
    table = document().get(section, {}) | {key: value}
    assert f"; write {fix}" in problems(document(**{section: table}))


def test_every_missing_value_is_reported_at_once_with_its_fix() -> None:
    text = problems({})
    for key, variable in (
        ("nest.refresh_token", "RELAY_NEST_REFRESH_TOKEN"),
        ("cloudflare.app_id", "RELAY_CLOUDFLARE_APP_ID"),
    ):
        assert f"{key} is missing" in text
        assert variable in text
    assert "refresh_token_file" in text


def test_environment_overrides_and_gives_its_secrets_up() -> None:
    environ = {"RELAY_HTTP_LISTEN": "127.0.0.1:9", "RELAY_CLOUDFLARE_APP_SECRET": "other", "RELAY_LIMITS_SHARE": "0.5"}
    config = config_file.parse(document(), environ)
    assert config.http.listen == "127.0.0.1:9"
    assert config.limits.share == 0.5
    assert config.cloudflare.app_secret == Secret("other")
    assert "RELAY_CLOUDFLARE_APP_SECRET" not in environ


def test_environment_takes_lists() -> None:
    config = config_file.parse(document(), {"RELAY_CAMERAS_INCLUDE": '["Front Door"]'})
    assert config.cameras.include == ["Front Door"]
    assert not config.cameras.included("Garage", "g")


def test_a_wrong_value_from_the_environment_names_its_variable() -> None:
    text = problems(document(), {"RELAY_RTSP_READ_TIMEOUT": "soon", "RELAY_NEST_CLIENT_SECRET_FILE": "/none"})
    assert "environment variable RELAY_RTSP_READ_TIMEOUT: rtsp.read_timeout is a string 'soon'" in text
    assert "environment variable RELAY_NEST_CLIENT_SECRET_FILE: nest.client_secret_file: /none cannot be read" in text
    assert "environment" not in problems(document(rtsp={"read_timeout": "soon"}))


def test_digits_in_the_environment_are_text_where_text_is_wanted() -> None:
    config = config_file.parse(
        document(),
        {"RELAY_CLOUDFLARE_APP_ID": "12345678", "RELAY_HTTP_LISTEN": '"[::1]:80"', "RELAY_LIMITS_SHARE": "1"},
    )
    assert (config.cloudflare.app_id, config.http.listen, config.limits.share) == ("12345678", "[::1]:80", 1.0)


def test_variables_that_are_no_keys_are_warned_of_and_never_fatal() -> None:
    kubernetes = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_WEB", "PORT", "PORT_8080_TCP", "PORT_8080_TCP_ADDR")
    environ = {
        **{f"RELAY_HTTP_{name}": "10.0.0.1" for name in kubernetes},
        **dict.fromkeys(("RELAY_HTP_LISTEN", "RELAY_HTTP_LISTN", "RELAY_BUILD_OF_OUR_CI", "RELAYED", "RELAY_"), "x"),
        **dict.fromkeys(("RELAY_CONFIG", "RELAY_STREAM_URL", "RELAY_NEST_REFRESH_TOKEN_FILE"), "x"),
    }
    ignored = "is no key of the configuration and is ignored"
    assert config_environment.unknown(environ) == [
        f"environment variable RELAY_ {ignored}",
        f"environment variable RELAY_BUILD_OF_OUR_CI {ignored}",
        f"environment variable RELAY_HTP_LISTEN {ignored}. Did you mean RELAY_HTTP_LISTEN?",
        f"environment variable RELAY_HTTP_LISTN {ignored}. Did you mean RELAY_HTTP_LISTEN?",
    ]
    del environ["RELAY_NEST_REFRESH_TOKEN_FILE"]
    assert config_file.parse(document(), environ) == config_file.parse(document())


def test_secret_files_are_read_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    doc = document(cloudflare={"app_id": "a", "app_secret_file": "secret"})
    assert config_file.parse(doc, {}, base=tmp_path).cloudflare.app_secret == Secret("from-file")
    assert config_file.loose_secret_files(doc, tmp_path) == [str(tmp_path / "secret")]
    (tmp_path / "secret").chmod(0o600)
    assert config_file.loose_secret_files(doc, tmp_path) == []


@pytest.mark.parametrize(
    ("mode", "owner", "group", "loose"),
    [
        (0o440, 0, 10001, False),  # as Kubernetes mounts a Secret with `fsGroup`
        (0o460, 0, 10001, True),
        (0o444, 0, 10001, True),
        (0o440, 0, 100, True),
        (0o440, 10001, 10001, True),
        (0o400, 10001, 100, False),
    ],
)
def test_a_secret_that_root_passes_on_to_the_relays_own_group_is_not_loose(
    mode: int, owner: int, group: int, loose: bool
) -> None:
    file = os.stat_result((0o100000 | mode, 0, 0, 1, owner, group, 6, 0, 0, 0))
    assert others_may_read(file, 10001, 10001) is loose
    assert others_may_read(file, 0, 0) is bool(mode & 0o077), "root sees that others may"


def test_secret_file_mistakes_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    both = problems(document(cloudflare={"app_id": "a", "app_secret": "x", "app_secret_file": "y"}))
    assert "both set" in both
    missing = problems(document(cloudflare={"app_id": "a", "app_secret_file": "/nonexistent/file"}))
    assert "No such file" in missing
    empty = problems(document(cloudflare={"app_id": "a", "app_secret_file": str(tmp_path / "empty")}))
    assert "is empty" in empty


@pytest.mark.parametrize(("path", "why"), [("~nobodyhere/x", "no such user's home directory"), ("a\0b", "NUL")])
def test_paths_that_cannot_be_ones_are_named(path: str, why: str) -> None:
    for section, key in (("http", "token_file"), ("rtsp", "ca_file"), ("paths", "state_dir"), ("paths", "runtime_dir")):
        found = problems(document(**{section: {key: path}}))
        assert f"{section}.{key} " in found
        assert why in found
    assert config_file.loose_secret_files(document(http={"token_file": path}), Path()) == []


def test_a_user_without_a_home_is_told_to_say_where_the_state_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container's that runs as a number: every verb ended with a traceback."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match=r"paths\.state_dir has to be set: this user has no home"):
        PathsConfig().state()
    assert PathsConfig(state_dir="/state").state() == Path("/state")


def test_a_runtime_directory_of_the_session_is_used_if_its_path_is_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG Base Directory specification says; `status` looked for the socket below its own directory."""
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert PathsConfig().runtime() == Path("/run/user/7/nest-relay")
    for unusable in ("run/user/7", "./run", ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", unusable)
        assert PathsConfig().runtime() == Path(tempfile.gettempdir()) / f"nest-relay-{os.getuid()}"


def test_relative_paths_start_at_the_files_directory(tmp_path: Path) -> None:
    """Wherever it is read from: `status` would look for the socket elsewhere than where `run` put it."""
    at = {"paths": {"state_dir": "state", "runtime_dir": "run"}, "rtsp": {"ca_file": "tls/ca.pem"}}
    config = config_file.parse(document(**at, cluster={"worker_template": "worker.yaml"}), base=tmp_path)
    assert (config.paths.state(), config.paths.runtime()) == (tmp_path / "state", tmp_path / "run")
    assert config.rtsp.ca_file == str(tmp_path / "tls/ca.pem")
    assert config.cluster.worker_template == str(tmp_path / "worker.yaml")
    elsewhere = config_file.parse(document(rtsp={"ca_file": "~/ca.pem"}, paths={"state_dir": "/state"}), base=tmp_path)
    assert (elsewhere.rtsp.ca_file, elsewhere.paths.state_dir) == (str(Path.home() / "ca.pem"), "/state")
    (tmp_path / "relay.toml").write_text('[paths]\nruntime_dir = "run"\n')
    assert config_file.load_interface(tmp_path / "relay.toml", {})[0].socket() == tmp_path / "run/http.sock"


def test_an_environment_that_is_not_text_is_named() -> None:
    with pytest.raises(ConfigError, match=r"RELAY_LOG_LEVEL: log\.level is not text"):
        config_file.parse(document(), {"RELAY_LOG_LEVEL": "\udc80"})


def test_several_accounts() -> None:
    nest = document()["nest"]
    config = config_file.parse(document(nest=[nest, nest | {"project_id": "q"}]))
    assert [n.project_id for n in config.nest] == ["p", "q"]
    assert "nest[1].project_id is missing" in problems(
        document(nest=[nest, {k: v for k, v in nest.items() if k != "project_id"}])
    )


def test_load_reports_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        config_file.load(tmp_path / "none.toml", {})
    for text in ("[nest\n", f"x = {'9' * 5000}", "x = " + "[" * 5000):
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(ConfigError, match="not valid TOML"):
            config_file.load(tmp_path / "bad.toml", {})


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("project_id = 5cd39b4c-0000-4000", 'project_id = "…"'),
        ("client_secret = hush-hush", 'client_secret = "…"'),
        ('client_secret = "hush-hush', "end with the quotation mark"),
        ("client_secret = “hush-hush”", 'Straight quotation marks are needed: client_secret = "…"'),
        ("enabled = True", "Write enabled = true"),
        ("include = [Front Door]", 'include = ["…", "…"]'),
        ('include = ["Front Door"', "A list ends with ]"),
        ("listen: 8080", "key = value"),
        ("[cameras.Front Door]", '[cameras."Front Door"]'),
        ('a = 1\na = "hush-hush"', "set twice"),
        ("[a]\n[a]", "[[nest]]"),
        ('ca_file = "C:\\certificates"', "between single"),
        ('x = """hush-hush', "never closed"),
    ],
)
def test_a_file_that_is_not_toml_comes_with_a_hint_and_without_its_values(tmp_path: Path, line: str, hint: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(f"[nest]\n{line}\n")
    with pytest.raises(ConfigError, match="not valid TOML") as caught:
        config_file.load(file, {})
    assert hint in caught.value.hint
    assert "hush" not in str(caught.value)


TURN_TABLE = {"urls": "turns:turn.example:443?transport=tcp", "username": "u", "credential": "pass-word"}


def test_ice_servers_are_urls_and_tables_with_a_credential(tmp_path: Path) -> None:
    (tmp_path / "turn").write_text("from a file\n")
    of_file = {"urls": ["turn:a", "turn:b"], "username": "u", "credential_file": "turn", "share_with_guests": True}
    cloudflare = document()["cloudflare"] | {"ice_servers": ["stun:s:3478", TURN_TABLE, of_file]}
    config = config_file.parse(document(cloudflare=cloudflare), base=tmp_path)
    plain, table, filed = config.cloudflare.ice_servers
    assert plain == "stun:s:3478"
    assert isinstance(table, IceServer)
    assert isinstance(filed, IceServer)
    assert (table.addresses, table.credential, table.share_with_guests) == (
        [TURN_TABLE["urls"]],
        Secret("pass-word"),
        False,
    )
    assert (filed.addresses, filed.credential, filed.share_with_guests) == (
        ["turn:a", "turn:b"],
        Secret("from a file"),
        True,
    )
    assert "pass-word" not in repr(config)


def test_a_turn_key_is_a_table_of_its_own_and_comes_from_the_environment_too(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    cloudflare = document()["cloudflare"] | {"turn": {"key_id": "k", "api_token_file": "token"}}
    assert config_file.parse(document(cloudflare=cloudflare), base=tmp_path).cloudflare.turn.api_token == Secret("t")
    assert config_file.loose_secret_files(document(cloudflare=cloudflare), tmp_path) == [str(tmp_path / "token")]
    environ = {"RELAY_CLOUDFLARE_TURN_KEY_ID": "5", "RELAY_CLOUDFLARE_TURN_API_TOKEN": "t"}
    turn = config_file.parse(document(), environ).cloudflare.turn
    assert (turn.key_id, turn.api_token) == ("5", Secret("t"))
    assert "RELAY_CLOUDFLARE_TURN_API_TOKEN" not in environ
    assert not config_environment.unknown({"RELAY_CLOUDFLARE_TURN_API_TOKEN_FILE": "/x"})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"ice_servers": ["turn:turn.example"]}, "ice_servers[0] is a TURN server without username and credential"),
        ({"ice_servers": [TURN_TABLE | {"username": ""}]}, "is a TURN server without username and credential"),
        ({"ice_servers": ["https://turn.example"]}, "ice_servers[0] is 'https://turn.example'; expected stun:"),
        ({"ice_servers": ["turn:u:secret-word@h"]}, "without a user name"),
        ({"ice_servers": [5]}, "ice_servers[0] is an integer 5; expected a URL or a table"),
        ({"ice_servers": [{"username": "u"}]}, "ice_servers[0].urls is missing"),
        ({"ice_servers": [TURN_TABLE | {"pasword": "x"}]}, "ice_servers[0].pasword is not a key"),
        (
            {"turn": {"key_id": "k"}},
            "cloudflare.turn.api_token is missing. Set it to the token shown when the TURN key",
        ),
        ({"turn": {"api_token": "t"}}, "cloudflare.turn.key_id is missing"),
        ({"turn": {"key": "k"}}, "cloudflare.turn.key is not a key. Did you mean key_id?"),
        ({"turn": 5}, "cloudflare.turn is an integer 5; it must be a table"),
    ],
)
def test_what_is_wrong_with_ice_servers_is_said_in_place(keys: dict[str, object], said: str) -> None:
    text = problems(document(cloudflare=document()["cloudflare"] | keys))
    assert said in text
    assert "secret-word" not in text
