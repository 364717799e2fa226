"""Connections to PostgreSQL: settings, sessions, and their errors."""
