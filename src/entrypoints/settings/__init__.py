"""The settings: one validated model, and where its values come from."""

from entrypoints.settings.model import Settings, load_settings

__all__ = ["Settings", "load_settings"]
