"""The running service: files, sockets, time and disks."""

__version__ = "0.1.0"
