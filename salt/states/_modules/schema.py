"""What schema a database has, next to what its component's code wants: cheap enough to ask in every highstate."""

import os
import re

SOCKET = "/run/mysqld/mysqld.sock"
_REVISION = re.compile(r"""^revision\s*(?::[^=]+)?=\s*['"]([^'"]+)['"]""", re.M)
_BEFORE = re.compile(r"""^(?:down_revision|depends_on)\s*(?::[^=]+)?=\s*(\([^)]*\)|.*)$""", re.M)
_QUOTED = re.compile(r"""['"]([^'"]+)['"]""")


def _heads(versions):
    """The revisions below a folder of alembic migrations that no other one follows or depends on."""
    revisions, followed = set(), set()
    for folder, _, names in os.walk(versions):
        for name in names:
            if not name.endswith(".py"):
                continue
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                text = file.read()
            revision = _REVISION.search(text)
            if not revision:
                continue
            revisions.add(revision.group(1))
            for before in _BEFORE.findall(text):
                followed.update(_QUOTED.findall(before))
    return revisions - followed


def _rows(database, query):
    """The rows of a query's answer; none when there is no such database or table."""
    # Not at the top: while an image is baked it is installed by the same run.
    import pymysql

    try:
        connection = pymysql.connect(unix_socket=SOCKET, user="root", database=database)
    except pymysql.err.MySQLError:
        return ()
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()
    except pymysql.err.MySQLError:
        return ()
    finally:
        connection.close()


def at_head(database, versions):
    """
    Whether `database` stands at every head of the alembic migrations below the folder `versions`.
    False as well when the database cannot be asked: then the migration says why.
    """
    return {row[0] for row in _rows(database, "SELECT version_num FROM alembic_version")} == _heads(versions)


def has_rows(database, table, at_least=1):
    """Whether `table` has that many rows. False when there is no such table, or nobody to ask."""
    rows = _rows(database, "SELECT COUNT(*) FROM `%s`" % table)
    return bool(rows) and rows[0][0] >= at_least
