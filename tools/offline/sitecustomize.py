"""Block the network in every Python that starts with this folder on PYTHONPATH.

Addresses on this machine stay open (a kernel talks to its client over loopback). Every attempt
to reach another one raises OSError and is also noted in the file that DLNOTES_NETWORK_LOG
names, so that an attempt whose error is caught still shows.
"""

import contextlib
import ipaddress
import os
import socket

DEAD_PROXY = ("127.0.0.1", 9)  # the tests name it as everybody's proxy: see nbval_gates.py


def _is_local(host) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False  # a name: looking it up already asks the network
    return address.is_loopback or address.is_unspecified


def _refuse(host) -> None:
    log = os.environ.get("DLNOTES_NETWORK_LOG")
    if log:
        with contextlib.suppress(OSError), open(log, "a", encoding="utf-8") as file:
            file.write(f"{host}\n")
    raise OSError(f"the network is blocked while notebooks are tested (asked for {host})")


def _check(sock, address) -> None:
    internet = sock.family in (socket.AF_INET, socket.AF_INET6)
    if not (internet and isinstance(address, tuple)):
        return
    if tuple(address[:2]) == DEAD_PROXY:
        _refuse("a web address")
    if not _is_local(address[0]):
        _refuse(address[0])


def _guard_method(name: str) -> None:
    original = getattr(socket.socket, name)

    def guarded(self, *args):
        # connect(address), sendto(data, [flags,] address)
        _check(self, args[-1])
        return original(self, *args)

    setattr(socket.socket, name, guarded)


def _guard_lookup(name: str) -> None:
    original = getattr(socket, name)

    def guarded(host, *args, **kwargs):
        if not _is_local(host):
            _refuse(host)
        return original(host, *args, **kwargs)

    setattr(socket, name, guarded)


for _name in ("connect", "connect_ex", "sendto"):
    _guard_method(_name)
for _name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    _guard_lookup(_name)
