"""
Databases migrated and filled by their components' own tools, which are run only when a look into the database finds it wanting.

States of our own rather than cmd.run with `unless`: that makes Salt load all its state modules, once in a run, for 2 s.
"""


def _run(name, wanting, runas, env):
    """What a state returns that runs the command `name` until `wanting` is no longer true."""
    ret = {"name": name, "changes": {}, "result": True, "comment": "As it should be"}
    if not wanting():
        return ret
    if __opts__["test"]:
        ret["result"] = None
        ret["comment"] = "Would be run"
        return ret
    run = __salt__["cmd.run_all"](name, runas=runas, env=env, python_shell=True)
    if run["retcode"] != 0 or wanting():
        ret["result"] = False
        ret["comment"] = "Exit code %d\n%s\n%s" % (run["retcode"], run["stdout"][-2000:], run["stderr"][-4000:])
        return ret
    ret["changes"] = {"run": name}
    ret["comment"] = "Run"
    return ret


def at_head(name, database, versions, runas=None, env=None):
    """
    `database` stands at the heads of the alembic migrations below the folder `versions`; otherwise the command `name`
    takes it there.
    """
    return _run(name, lambda: not __salt__["schema.at_head"](database, versions), runas, env)


def filled(name, database, table, at_least=1, runas=None, env=None):
    """`table` of `database` has that many rows; otherwise the command `name` makes them."""
    return _run(name, lambda: not __salt__["schema.has_rows"](database, table, at_least), runas, env)
