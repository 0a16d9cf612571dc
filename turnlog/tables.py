"""Read models that come with turnlog, for tools that read a database: see docs/existing-tools.md."""

from turnlog.adapters.agent_tables import AgentTables
from turnlog.adapters.elsewhere import Elsewhere

__all__ = ["AgentTables", "Elsewhere"]
