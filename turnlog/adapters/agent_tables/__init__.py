"""Tables ``agent_sessions`` and ``agent_messages`` for tools of @falai/agent. Begin in projection.py."""

from turnlog.adapters.agent_tables.projection import AgentTables

__all__ = ["AgentTables"]
