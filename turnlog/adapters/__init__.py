"""Everything that touches the outside: databases, the command line, files."""
