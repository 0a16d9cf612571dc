"""Sessions of other systems into turnlog: @falai/agent, confused-ai, the OpenAI Agents SDK. Begin in migrate.py."""

from turnlog.adapters.migration.migrate import KINDS, MigrationProgress, MigrationReport, migrate
from turnlog.adapters.migration.session import Note

__all__ = ["KINDS", "MigrationProgress", "MigrationReport", "Note", "migrate"]
