"""bhyved: an event-driven supervisor for FreeBSD's bhyve virtual machines."""

__version__ = "0.1.0"
