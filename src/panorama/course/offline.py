"""Run a command without a network: `python offline.py COMMAND …`.

Run by its path, not as a module: a user namespace needs a process with one thread, and importing
`panorama` imports numpy, which starts some.
"""

import ctypes
import os
import sys
from pathlib import Path


def leave_the_network() -> None:
    """Move this process into a network namespace that holds only the loopback device. Where that
    is not permitted, put a socket guard on the PYTHONPATH of what it runs."""
    os.environ.update(HF_HUB_OFFLINE="1", YOLO_OFFLINE="1")
    if os.environ.get("PANORAMA_OFFLINE") != "guard" and own_network_namespace():
        return
    paths = [str(Path(__file__).with_name("guard")), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def own_network_namespace() -> bool:
    """Linux only. Without privileges it takes a user namespace, with this user mapped to itself."""
    new_user, new_network = 0x10000000, 0x40000000
    try:
        import fcntl
        import socket
        import struct

        libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
        if libc.unshare(new_network) != 0:
            if libc.unshare(new_user | new_network) != 0:
                return False
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            set_flags, up_and_running = 0x8914, 0x41
            request = struct.pack("16sh14x", b"lo", up_and_running)
            fcntl.ioctl(device, set_flags, request)
    except (OSError, AttributeError, ImportError):
        return False
    return True


if __name__ == "__main__":
    leave_the_network()
    os.execv(sys.argv[1], sys.argv[1:])
