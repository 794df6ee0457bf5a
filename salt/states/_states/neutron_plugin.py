"""The tables of a package that extends Neutron's server: in Neutron's database, migrated by neutron-db-manage as a subproject."""

import os

SOCKET = "/run/mysqld/mysqld.sock"


def __virtual__():
    return "neutron_plugin"


def _rows(database, query):
    """The rows of a query's answer."""
    answer = __salt__["mysql.query"](database, query, connection_unix_socket=SOCKET)
    return {row[0] for row in answer.get("results", ())} if isinstance(answer, dict) else set()


def _tables(database, names):
    """Which of these tables there are."""
    query = "SELECT table_name FROM information_schema.tables WHERE table_schema = '%s' AND table_name IN (%s)"
    found = _rows(database, query % (database, ", ".join("'%s'" % name for name in names)))
    return [name for name in names if name in found]


def _run(name, changes, apply):
    """What a state returns that `apply` brings about, which returns why it could not."""
    ret = {"name": name, "changes": changes, "result": True, "comment": "As it should be"}
    if not changes:
        return ret
    if __opts__["test"]:
        ret["result"] = None
        ret["comment"] = "Would change"
        return ret
    failure = apply()
    if failure:
        ret.update(result=False, changes={}, comment=failure)
    else:
        ret["comment"] = "Changed"
    return ret


def schema(name, database, table, versions):
    """
    The subproject `name` stands in `database` at the heads of its branches, which it writes in `table`, and which are
    named by the files EXPAND_HEAD and CONTRACT_HEAD in the folder `versions`.
    """

    def heads():
        found = set()
        for branch in ("EXPAND_HEAD", "CONTRACT_HEAD"):
            with open(os.path.join(versions, branch), encoding="utf-8") as file:
                found.add(file.read().strip())
        return found

    def at():
        return _rows(database, "SELECT version_num FROM " + table) if _tables(database, [table]) else set()

    def apply():
        run = __salt__["cmd.run_all"]("neutron-db-manage --subproject %s upgrade heads" % name, runas="neutron")
        if run["retcode"] == 0 and at() == heads():
            return None
        return "Exit code %d\n%s\n%s" % (run["retcode"], run["stdout"][-2000:], run["stderr"][-4000:])

    # In test mode the code may not be there yet.
    if __opts__["test"] and not os.path.isdir(versions):
        return _run(name, {"new": "the newest"}, apply)
    old, new = sorted(at()), sorted(heads())
    return _run(name, {"old": old, "new": new} if old != new else {}, apply)


def no_schema(name, database, tables):
    """None of these tables is in `database`. They are dropped, and what is in them, in the order given."""
    found = _tables(database, tables)

    def apply():
        for table in found:
            __salt__["mysql.query"](database, "DROP TABLE " + table, connection_unix_socket=SOCKET)
        left = _tables(database, found)
        return "Could not be dropped: " + ", ".join(left) if left else None

    return _run(name, {"dropped": found} if found else {}, apply)
