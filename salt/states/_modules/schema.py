"""What schema a database has, next to what its component's code wants: cheap enough to ask in every highstate."""

import os
import re

import pymysql

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
    connection = pymysql.connect(unix_socket=SOCKET, user="root", database=database)
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()
    finally:
        connection.close()


def at_head(database, versions):
    """
    Whether `database` stands at every head of the alembic migrations below the folder `versions`.
    False as well when the database cannot be asked: then the migration says why.
    """
    try:
        return {row[0] for row in _rows(database, "SELECT version_num FROM alembic_version")} == _heads(versions)
    except pymysql.err.MySQLError:
        return False


def has_rows(database, table, at_least=1):
    """Whether `table` has that many rows. False when there is no such table."""
    try:
        return _rows(database, "SELECT COUNT(*) FROM `%s`" % table)[0][0] >= at_least
    except pymysql.err.MySQLError:
        return False


def baking_connection(database):
    """Where a migration finds `database` while an image is baked: in a server that lives only as long."""
    return "mysql+pymysql://bake:bake@localhost/%s?unix_socket=%s" % (database, SOCKET)
