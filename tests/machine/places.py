"""Empty places on the servers of tests."""

from tests.servers import MariaDB, MongoDB, PostgreSQL, Redis


def new_place(server: PostgreSQL | MariaDB | Redis | MongoDB) -> str:
    """Return the URL of an empty schema or database."""
    return server.new_schema() if isinstance(server, PostgreSQL) else server.new_database()


def drop_place(server: PostgreSQL | MariaDB | Redis | MongoDB, url: str) -> None:
    """Drop it with all that is in it."""
    if isinstance(server, PostgreSQL):
        server.drop_schema(url)
    else:
        server.drop_database(url)
