"""The settings: one validated model, and where its values come from."""

from entrypoints.settings.load import load_settings
from entrypoints.settings.model import Settings

__all__ = ["Settings", "load_settings"]
