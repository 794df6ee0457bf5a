# Asks guests' agents by libvirt: a question a line on stdin, an answer a line on stdout, in whatever order they come.
import json
import os
import sys
import threading

import libvirt
import libvirt_qemu

SECONDS = 20  # for an answer of an agent's

libvirt.registerErrorHandler(lambda *_: None, None)
connection = libvirt.open("qemu:///system")
printing = threading.Lock()


def ask(question):
    answer = {"id": question["id"]}
    try:
        domain = connection.lookupByName(question["domain"])
        answer["answer"] = libvirt_qemu.qemuAgentCommand(domain, json.dumps(question["request"]), SECONDS, 0)
    except libvirt.libvirtError as error:
        if connection.isAlive() != 1:
            print("the connection to libvirt is lost:", error, file=sys.stderr, flush=True)
            os._exit(1)
        answer["error"] = error.get_error_message()
    with printing:
        print(json.dumps(answer), flush=True)


for line in sys.stdin:
    threading.Thread(target=ask, args=[json.loads(line)], daemon=True).start()
