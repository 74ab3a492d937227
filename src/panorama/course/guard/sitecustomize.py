"""Refuses every connection that leaves this machine. On a kernel's PYTHONPATH where Linux gives no
network namespace; it reaches Python code only."""

import socket


def _refuse(address):
    host = address[0] if isinstance(address, tuple) else None
    if host is not None and host not in ("127.0.0.1", "::1", "localhost", "0.0.0.0", ""):
        raise OSError(101, f"Network is unreachable (run offline): {host}")


def _guard(name):
    original = getattr(socket.socket, name)

    def guarded(self, address, *rest):
        _refuse(address)
        return original(self, address, *rest)

    setattr(socket.socket, name, guarded)


_guard("connect")
_guard("connect_ex")
_resolve = socket.getaddrinfo


def _getaddrinfo(host, *rest, **options):
    _refuse((host or "",))
    return _resolve(host, *rest, **options)


socket.getaddrinfo = _getaddrinfo
