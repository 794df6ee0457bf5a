"""Runs states and tells of each as it begins, for who waits outside.

Salt's own progress events need a master. This module counts at the two places through which every state goes: the
ordered list of low chunks (how many there are) and the call of each.
"""

import json
import os

import salt.state

PROGRESS = "/run/toastdev/salt.progress"


def apply(mods=None, test=False):
    """
    Run a highstate, or the states of a comma list, and write one line of JSON for each state to PROGRESS:
    ``{"i": 3, "n": 62, "id": "/etc/nova/nova.conf", "fun": "file.managed"}``.

    mods
        comma list of states; all of the node's own when absent
    test
        say what would change, and change nothing
    """
    os.makedirs(os.path.dirname(PROGRESS), exist_ok=True)
    call_chunks, call = salt.state.State.call_chunks, salt.state.State.call
    with open(PROGRESS, "w", buffering=1) as progress:
        count = {"i": 0, "n": 0}

        def counted(self, chunks, *args, **kwargs):
            count["n"] += len(chunks)
            return call_chunks(self, chunks, *args, **kwargs)

        def told(self, low, *args, **kwargs):
            count["i"] += 1
            line = dict(count, id=low["__id__"], fun=low["state"] + "." + low["fun"])
            progress.write(json.dumps(line) + "\n")
            return call(self, low, *args, **kwargs)

        salt.state.State.call_chunks, salt.state.State.call = counted, told
        try:
            if mods:
                return __salt__["state.sls"](mods, test=test)
            return __salt__["state.highstate"](test=test)
        finally:
            salt.state.State.call_chunks, salt.state.State.call = call_chunks, call
