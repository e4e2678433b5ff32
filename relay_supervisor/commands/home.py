"""Watching at home without Cloudflare: which of this machine's addresses `auth` writes, as the person picks."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

import click

from relay_common.loopback import is_loopback
from relay_supervisor.commands.cli import typed

LOOPBACK: Final = "127.0.0.1"
_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses of no machine (RFC 5737, RFC 3849): the way to them shows ours, and nothing is sent."""


def own_addresses() -> list[str]:
    """The addresses by which this machine goes out to others, IPv4 first."""
    found = []
    for family, elsewhere in _ELSEWHERE:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect((elsewhere, 9))
            except OSError:
                continue
            address = str(sock.getsockname()[0])
            if not is_loopback(address):
                found.append(address)
    return found


def address_problem(text: str) -> str:
    """Why viewers cannot be answered at this address of the machine; "" when they can."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return f"{text!r} is no address; write one such as 192.168.1.10"
    if address.is_unspecified or address.is_multicast:
        return f"{text} is no machine's address; pick one that the browser can go to"
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((text, 0))
        except OSError as error:
            return f"{text} is not an address of this machine ({error.strerror}); `ip -brief address` lists them"
    return ""


def ask_address() -> str:
    """The address at which to watch: loopback, unless the person picks another."""
    say = [f"Where do you want to watch? {LOOPBACK}: on this machine alone (Enter)."]
    say += [f"{address}: from others in its network, with a token that is made now." for address in own_addresses()]
    click.echo(typed("\n  ".join(say)), err=True)
    while True:
        text = str(click.prompt("Address", default=LOOPBACK, err=True)).strip()
        if not (wrong := address_problem(text)):
            return text
        click.echo(click.style(typed(wrong), fg="yellow"), err=True)


def http_listen(address: str) -> str:
    """`http.listen` for that address."""
    return f"[{address}]:8080" if ":" in address else f"{address}:8080"
