"""Empty places on the servers of tests."""

from tests.servers import MariaDB, PostgreSQL, Redis


def new_place(server: PostgreSQL | MariaDB | Redis) -> str:
    """Return the URL of an empty schema or database."""
    return server.new_schema() if isinstance(server, PostgreSQL) else server.new_database()


def drop_place(server: PostgreSQL | MariaDB | Redis, url: str) -> None:
    """Drop it with all that is in it."""
    if isinstance(server, PostgreSQL):
        server.drop_schema(url)
    else:
        server.drop_database(url)
