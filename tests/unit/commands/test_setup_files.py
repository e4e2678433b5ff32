"""Correcting one value of a configuration that people have written: everything else stays, or nothing is changed."""

from __future__ import annotations

import pytest

from relay_supervisor.commands.setup_files import corrected

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
