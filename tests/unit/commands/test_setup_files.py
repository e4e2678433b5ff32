"""Correcting one value of a configuration that people have written: everything else stays, or nothing is changed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from relay_common import config_file
from relay_common.config import NestConfig
from relay_common.secrets import Secret
from relay_supervisor import prerequisites
from relay_supervisor.commands.home import address_problem, http_listen, own_addresses
from relay_supervisor.commands.setup_files import SetupFiles, corrected, read

FILE = """\
# ours
[http]
project_id = "not this one"

[nest]  # the house
client_id = 'c'
project_id = "wrong"   # from the console
refresh_token_file = "t"
[cloudflare]
project_id = "nor this one"
"""


def test_what_an_editor_of_windows_writes_before_the_text_is_passed_over(tmp_path: Path) -> None:
    (file := tmp_path / "relay.toml").write_text(FILE, "utf-8-sig")
    (tmp_path / "t").write_text("1//hush\r\n", "utf-8-sig")
    existing = read(file)
    assert (existing.nest("client_id"), existing.secret("refresh_token", tmp_path)) == ("c", "1//hush")


def test_one_value_is_replaced_where_it_stands() -> None:
    assert corrected(FILE, "project_id", "right") == FILE.replace('"wrong"', '"right"')
    assert corrected(FILE, "client_id", 'a"b\\1') == FILE.replace("'c'", r'"a\"b\\1"')


def test_a_missing_value_is_added_to_its_table() -> None:
    text = corrected('[nest]\nclient_id = "c"\n[http]\n', "project_id", "right")
    assert text == '[nest]\nproject_id = "right"\nclient_id = "c"\n[http]\n'


def test_of_several_accounts_it_is_the_first() -> None:
    text = '[[nest]]\nproject_id = "a"\n[[nest]]\nproject_id = "b"\n'
    assert corrected(text, "project_id", "c") == text.replace('"a"', '"c"')


@pytest.mark.parametrize(
    "text",
    [
        'nest = {project_id = "wrong"}\n',
        'nest.project_id = "wrong"\n',
        '[nest]\nproject_id = """\nwrong"""\n',
        '[nest]\n"project_id" = "wrong"\n',
        '[nest]\ntext = """\nproject_id = "wrong"\n"""\n',
        "[http]\n",
    ],
)
def test_what_is_not_sure_is_left_to_people(text: str) -> None:
    assert corrected(text, "project_id", "right") is None


@pytest.mark.parametrize(
    ("address", "token"), [("127.0.0.1", ""), ("192.168.1.10", "0123456789abcdef"), ("fd00::10", "0123456789abcdef")]
)
def test_watching_at_home_is_a_whole_configuration(tmp_path: Path, address: str, token: str) -> None:
    path = tmp_path / "relay.toml"
    nest = NestConfig(
        project_id="5cd39b4c-0000-4000-8000-51a1a7edf00d",
        client_id="123456789012-abcdef.apps.googleusercontent.com",
        client_secret=Secret("GOCSPX-0123456789abcdefghijklmnopqr"),
        refresh_token=Secret("1//0refresh"),
    )
    files = SetupFiles(path, read(path))
    files.write(nest)
    files.write_home(nest, address, http_listen(address), Secret(token), Secret("abcdef0123456789"))
    config = config_file.load(path, {})
    assert (config.local.addresses, config.local.announced) == ([address], [address])
    assert not config.cloudflare.used
    assert (config.http.listen, config.http.token.reveal()) == (http_listen(address), token)
    assert prerequisites.refusals(config) == []
    assert (config.viewers.access, config.viewers.link_secret.reveal()) == (
        ("links", "abcdef0123456789") if token else ("auto", "")
    )
    assert [stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "secrets").iterdir()] == [0o600] * (
        4 if token else 2
    )


def test_an_address_that_can_be_picked_is_this_machines() -> None:
    assert address_problem("127.0.0.1") == ""
    assert [address_problem(address) for address in own_addresses()] == [""] * len(own_addresses())
    assert "is no address" in address_problem("home")
    assert "no machine's address" in address_problem("0.0.0.0")
    assert "not an address of this machine" in address_problem("198.51.100.7")
