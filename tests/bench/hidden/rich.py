"""Stands in the way of rich, which structlog imports where it is installed: here for import-linter's sake, on a host for nobody's."""

raise ImportError("hidden from what is measured")
