"""Lays files over a component's installed code, and takes them off again.

Run on a node, with a verb. On stdin is a request: one line of JSON, then the contents that it announces
("bodies": their sizes), one after another. All of it is read before anything is touched. The answer on stdout has the same form.

What is kept, in STATE/COMPONENT:
  record.json    what is laid: every path with its package's state (base) and ours (laid)
  originals/     the package's bytes of these paths, by SHA-256
  pending.json   paths that changed and whose units were not yet said to be restarted
  journal.json   there while a change is under way

A change has two halves. prepare writes every new file beside its target and gives every old one a second name; commit
renames. The journal says which half it is: killed in the first, the change is undone by the next run; killed in the second, it
is finished. A commit that fails (no space, a file that cannot be replaced) is undone at once.
"""

import errno
import fcntl
import hashlib
import importlib._bootstrap_external as bootstrap
import json
import os
import signal
import stat
import sys
import time

PREFIX = ""
STATE = PREFIX + "/var/lib/toastdev/overlay"
DPKG = PREFIX + "/var/lib/dpkg/info"
LOCK = PREFIX + "/run/toastdev-overlay.lock"
PATIENCE = 60  # seconds that another run may hold the lock
METADATA = "EGG-INFO"  # stands in a path for the folder of the component's entry points
CACHE = "__pycache__"


class Refusal(Exception):
    """What a user can act on; nothing was changed."""

    def __init__(self, message, code="failed", **more):
        super().__init__(message)
        self.fault = dict(more, code=code, message=message)


# Files and their states.


def digest(content):
    return hashlib.sha256(content).hexdigest()


def read(path):
    with open(path, "rb") as f:
        return f.read()


def look(path):
    """A file's state, None where there is none."""
    try:
        s = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(s.st_mode):
        kind = "a link" if stat.S_ISLNK(s.st_mode) else "a folder" if stat.S_ISDIR(s.st_mode) else "no file"
        raise Refusal("this is %s" % kind, "invalid", file=path, expected="a file")
    return {"sha256": digest(read(path)), "size": s.st_size, "mode": stat.S_IMODE(s.st_mode), "uid": s.st_uid, "gid": s.st_gid,
            "mtime": s.st_mtime_ns}


def same(a, b):
    """Whether two states have the same content: a touched file is still the same."""
    return a is b or (a is not None and b is not None and a["sha256"] == b["sha256"])


def fsync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path, content):
    """Writes a file of ours: all or nothing, and durable."""
    with open(path + ".new", "wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    os.rename(path + ".new", path)
    fsync(os.path.dirname(path))


def remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def load(path):
    try:
        return json.loads(read(path))
    except FileNotFoundError:
        return None


def dump(path, value):
    write(path, json.dumps(value, sort_keys=True).encode())


# What dpkg says of files.


class Packages:
    """Finds which package has a file, and its MD5. Every list is read at most once, the likely ones first."""

    def __init__(self, component):
        try:
            names = [n for n in os.listdir(DPKG) if n.endswith(".md5sums")]
        except FileNotFoundError:
            names = []
        self.lists = sorted(names, key=lambda n: (n != "python3-%s.md5sums" % component, component not in n, n))
        self.text = {}

    def find(self, path):
        """The package of a file and the MD5 of its content; None, None where none has it."""
        path = path[len(PREFIX):]
        needle = b"  " + path.lstrip("/").encode() + b"\n"
        for name in self.lists:
            if name not in self.text:
                self.text[name] = b"\n" + read(os.path.join(DPKG, name))
            at = self.text[name].find(needle)
            if at > 0:
                return name[: -len(".md5sums")], self.text[name][at - 32 : at].decode()
        return None, None

    def has(self, path):
        """Whether the file is as its package has it; the package's name, None where none has it."""
        name, md5 = self.find(path)
        if name is None:
            return False, None
        try:
            return hashlib.md5(read(path)).hexdigest() == md5, name
        except FileNotFoundError:
            return False, name


# One component.


class Component:
    def __init__(self, name):
        self.name = name
        self.dir = os.path.join(STATE, name)
        self.journal = os.path.join(self.dir, "journal.json")
        self.recorded = os.path.join(self.dir, "record.json")
        self.unsettled = os.path.join(self.dir, "pending.json")
        self.originals = os.path.join(self.dir, "originals")
        self.packages = Packages(name)
        self.record = load(self.recorded)

    def files(self):
        return self.record["files"] if self.record else {}

    def parent(self):
        return os.path.dirname(self.record["root"])

    # Paths.

    def metadata(self, parent):
        """The folder of the component's entry points and version, None where there is none."""
        for name in sorted(os.listdir(parent)):
            stem, kind = os.path.splitext(name)
            if kind in (".egg-info", ".dist-info") and stem.split("-")[0].replace("_", "-").lower() == self.name:
                return name
        return None

    def resolve(self, root, path):
        """Where a path of a request lies. It stays below the root, and passes through no link."""
        parent, top = os.path.split(root)
        parts = path.split("/")
        if parts[0] == METADATA:
            parts[0] = top = self.metadata(parent)
            if top is None:
                raise Refusal("%s has no folder of entry points here" % self.name, "not-found", file=parent)
        if parts[0] != top or len(parts) < 2 or any(p in ("", ".", "..", CACHE) for p in parts):
            raise Refusal("this path leaves the component's code", "invalid", file=path, expected="a path below %s" % top)
        self.walk(parent, parts)
        return "/".join(parts)

    def walk(self, parent, parts):
        at = parent
        for i, part in enumerate(parts[:-1]):
            at = os.path.join(at, part)
            try:
                mode = os.lstat(at).st_mode
            except FileNotFoundError:
                return
            if not stat.S_ISDIR(mode):
                raise Refusal("this is %s" % ("a link" if stat.S_ISLNK(mode) else "no folder"), "invalid", file=at, expected="a folder: nothing is laid through a link")

    def cache(self, path):
        """Where the interpreter keeps what it made of a source file."""
        folder, name = os.path.split(path)
        return "%s/%s/%s.%s.pyc" % (folder, CACHE, name[: -len(".py")], sys.implementation.cache_tag)

    # Planning a change.

    def change(self, request, contents, partial, lift, force):
        """The steps from what is to what is wanted, as a journal; None when nothing differs."""
        root = request["root"] if not lift else self.record["root"]
        parent = os.path.dirname(root)
        if not lift and not stat.S_ISDIR(self.lstat(root).st_mode):
            raise Refusal("this is no folder", "not-found", file=root, expected="the component's installed code")
        if self.record and self.record["root"] != root:
            raise Refusal("%s is laid over %s" % (self.name, self.record["root"]), "invalid", file=root, remedy="take it off first")
        old = self.files()
        files, changes, kept, bodies = {}, [], [], {}
        wanted = {}
        for path, want in request.get("files", {}).items():
            wanted[self.resolve(root, path)] = want
        for path in wanted:
            above = path
            while "/" in above:
                above = above.rsplit("/", 1)[0]
                if above in wanted and not wanted[above].get("absent"):
                    raise Refusal("%s is to be a file and a folder" % above, "invalid", file=path)
        compiled = {}
        for path, want in sorted(wanted.items()):
            content = None if want.get("absent") else contents[want["body"]]
            compiled[path] = self.compile(parent, path, content, old.get(path))
        for path, want in sorted(wanted.items()):
            target = os.path.join(parent, path)
            now = look(target)
            base = self.base(path, target, now, old.get(path), force, kept=None)
            expected = want.get("base")
            if expected and expected != ("-" if base is None else base["sha256"]):
                raise Refusal("the package's file is not the one that this was made for", file=target, expected="SHA-256 %s" % expected,
                              remedy="compute it anew from what is installed on this node")
            content = None if want.get("absent") else contents[want["body"]]
            laid = self.laid(target, content, want.get("mode") or 0, base, old.get(path))
            if laid is base:
                self.back(changes, path, now, base)
                if path.endswith(".py"):
                    self.back_cache(parent, path, old, changes)
                continue
            files[path] = {"base": base, "laid": laid}
            if now is None or laid is None or any(now[k] != laid[k] for k in laid):
                if now is not laid:
                    changes.append({"path": path, "now": now, "then": laid, "from": "body"})
                    bodies[path] = content
            if path.endswith(".py") and content is not None:
                self.lay_cache(parent, path, content, compiled[path], laid, old, files, changes, bodies)
        for path, entry in sorted(old.items()):
            if path in files or path in wanted or entry.get("cache"):
                continue
            if partial:
                files[path] = entry
                if self.cache(path) in old:
                    files[self.cache(path)] = old[self.cache(path)]
                continue
            target = os.path.join(parent, path)
            self.walk(parent, path.split("/"))
            now = look(target)
            base = self.base(path, target, now, entry, force, kept if lift else None)
            self.back(changes, path, now, base)
            if path.endswith(".py") and path not in kept:
                self.back_cache(parent, path, old, changes)
        layers = request.get("layers", [])
        record = None
        if not lift and (files or layers):
            record = {"component": self.name, "root": root, "layers": layers, "digest": request.get("digest", ""), "files": files,
                      "at": time.time(), "made": []}
        mkdirs, rmdirs = self.folders(parent, files, changes)
        if record:
            made = self.record["made"] if self.record else []
            record["made"] = [d for d in made if d not in rmdirs] + mkdirs
        if not changes and not mkdirs and not rmdirs and self.record and record and all(
                self.record[k] == record[k] for k in ("root", "layers", "digest", "files")):
            return None, bodies, kept
        if not changes and record is None and self.record is None:
            return None, bodies, kept
        stamp = lambda c, kind: ".toastdev-%s.%s" % (hashlib.sha1(c["path"].encode()).hexdigest()[:12], kind)
        for c in changes:
            c["new"], c["old"] = stamp(c, "new"), stamp(c, "old")
        return {"phase": "prepare", "root": root, "changes": changes, "mkdirs": mkdirs, "rmdirs": rmdirs, "record": record}, bodies, kept

    def lstat(self, path):
        try:
            return os.lstat(path)
        except FileNotFoundError:
            raise Refusal("%s is not installed here" % self.name, "not-found", file=path) from None

    def base(self, path, target, now, entry, force, kept):
        """The package's state of a file, when nobody else has changed it since."""
        if entry is None:
            pristine, package = self.packages.has(target)
            if package and not pristine and not force:
                raise Refusal("this is not the file of the package %s: %s" % (package, "it was edited" if now else "it was removed"), file=target,
                              remedy="reinstall the package (apt-get install --reinstall %s), or keep the edit as a patch, or use force to lay over it" % package)
            return now
        if same(now, entry["laid"]):
            # What we laid may be a package's since: then it is not ours to remove.
            if entry["base"] is None and kept is not None and self.packages.has(target)[0]:
                kept.append(path)
                return now
            return entry["base"]
        if same(now, entry["base"]):
            return now
        if now is None:
            return entry["base"]  # nothing is lost
        pristine, package = self.packages.has(target)
        if pristine and kept is not None:
            kept.append(path)
            return now
        if pristine and not force:
            raise Refusal("the package %s was changed under what is laid over it" % package, file=target,
                          remedy="take it off first (what the package replaced stays as the package has it), then lay it anew")
        if pristine:
            return now
        if not force:
            raise Refusal("this file was edited since it was laid", file=target,
                          remedy="keep the edit as a patch, or use force to lose it")
        return entry["base"]

    def laid(self, target, content, mode, base, entry):
        """The state that a file is to have: base itself when it differs in nothing."""
        if content is None:
            return None
        s = {"sha256": digest(content), "size": len(content)}
        if base:
            s.update(mode=mode or base["mode"], uid=base["uid"], gid=base["gid"])
            if s["sha256"] == base["sha256"] and s["mode"] == base["mode"]:
                return base
        else:
            at = os.path.dirname(target)
            while not os.path.isdir(at):
                at = os.path.dirname(at)
            owner = os.stat(at)
            s.update(mode=mode or 0o644, uid=owner.st_uid, gid=owner.st_gid)
        before = entry and entry["laid"]
        if same(before, s):
            s["mtime"] = before["mtime"]
        else:
            # Caches go by the second of a source's time and its size: one that was already used is not used again.
            second = int(time.time())
            used = [st["mtime"] // 10**9 for st in (base, before) if st]
            while second in used:
                second += 1
            s["mtime"] = second * 10**9
        return s

    def back(self, changes, path, now, base):
        if now is not base and (now is None or base is None or now != base):
            changes.append({"path": path, "now": now, "then": base, "from": "original"})

    def lay_cache(self, parent, path, content, code, laid, old, files, changes, bodies):
        cache = self.cache(path)
        target = os.path.join(parent, cache)
        self.walk(parent, cache.split("/"))
        entry = old.get(cache)
        now = look(target)
        base = entry["base"] if entry else now
        if code is None and entry and same(now, entry["laid"]) and same(old[path]["laid"], laid) and old[path]["laid"]["mtime"] == laid["mtime"]:
            files[cache] = entry
            return
        if code is None:
            code = compile(content, os.path.join(parent, path), "exec", dont_inherit=True)
        body = bytes(bootstrap._code_to_timestamp_pyc(code, laid["mtime"] // 10**9, laid["size"]))
        then = {"sha256": digest(body), "size": len(body), "mode": 0o644, "uid": laid["uid"], "gid": laid["gid"], "mtime": laid["mtime"]}
        files[cache] = {"base": base, "laid": then, "cache": True}
        if now != then:
            changes.append({"path": cache, "now": now, "then": then, "from": "body"})
            bodies[cache] = body

    def back_cache(self, parent, path, old, changes):
        cache = self.cache(path)
        entry = old.get(cache)
        if not entry:
            return
        self.walk(parent, cache.split("/"))
        now = look(os.path.join(parent, cache))
        if entry["base"] is None or now is None or same(now, entry["laid"]):  # else an interpreter's or a package's since
            self.back(changes, cache, now, entry["base"])

    def compile(self, parent, path, content, entry):
        """What the interpreter makes of a source file; None when it is already laid, or no source."""
        if content is None or not path.endswith(".py"):
            return None
        if entry and entry["laid"] and entry["laid"]["sha256"] == digest(content):
            return None
        try:
            return compile(content, os.path.join(parent, path), "exec", dont_inherit=True)
        except SyntaxError as e:
            raise Refusal("%s: %s" % (type(e).__name__, e.msg), "invalid", file=path, line=e.lineno or 1, column=e.offset or 0,
                          log=[e.text.rstrip("\n")] if e.text else []) from None
        except (ValueError, RecursionError, MemoryError) as e:
            raise Refusal("this is no Python: %s" % e, "invalid", file=path, line=1) from None

    def folders(self, parent, files, changes):
        """The folders to make, outermost first, and those of ours that nothing is left in, innermost first."""
        needed = set()
        for path, entry in files.items():
            if entry["laid"]:
                above = os.path.dirname(path)
                while above:
                    needed.add(above)
                    above = os.path.dirname(above)
        for c in changes:
            if c["then"]:
                needed.add(os.path.dirname(c["path"]))
        mkdirs = sorted(d for d in needed if not os.path.isdir(os.path.join(parent, d)))
        made = self.record["made"] if self.record else []
        return mkdirs, sorted((d for d in made if d not in needed), reverse=True)

    # Making a change.

    def perform(self, journal, bodies):
        parent = os.path.dirname(journal["root"])
        os.makedirs(self.originals, exist_ok=True)
        try:
            if journal["record"]:
                for path, entry in journal["record"]["files"].items():
                    self.keep(os.path.join(parent, path), entry["base"])
            for c in journal["changes"]:
                if c["from"] == "original" and c["then"]:
                    bodies[c["path"]] = self.original(os.path.join(parent, c["path"]), c["then"])
            dump(self.journal, journal)
        except OSError:
            remove(self.journal)
            self.clean()
            raise
        try:
            self.prepare(journal, parent, bodies)
            journal["phase"] = "commit"
            dump(self.journal, journal)
        except (OSError, Refusal):
            self.undo(journal, parent)
            raise
        try:
            self.commit(journal, parent)
        except OSError:
            journal["phase"] = "undo"
            dump(self.journal, journal)
            self.undo(journal, parent)
            raise
        self.finish(journal, parent)

    def keep(self, target, base):
        if base is None:
            return
        at = os.path.join(self.originals, base["sha256"])
        if os.path.exists(at):
            return
        content = read(target)
        if digest(content) != base["sha256"]:
            raise Refusal("this file changes while it is read", file=target, remedy="try again")
        write(at, content)

    def original(self, target, base):
        try:
            content = read(os.path.join(self.originals, base["sha256"]))
        except FileNotFoundError:
            content = b""
        if digest(content) != base["sha256"]:
            package = self.packages.find(target)[0]
            raise Refusal("the package's original of this file is lost", file=target,
                          remedy="reinstall the package (apt-get install --reinstall %s)" % package if package else "")
        return content

    def prepare(self, journal, parent, bodies):
        for folder in journal["mkdirs"]:
            at = os.path.join(parent, folder)
            if not os.path.isdir(at):
                os.mkdir(at, 0o755)
                owner = os.stat(os.path.dirname(at))
                os.chown(at, owner.st_uid, owner.st_gid)
        fresh = []
        for c in journal["changes"]:
            target = os.path.join(parent, c["path"])
            folder = os.path.dirname(target)
            if c["now"]:
                os.link(target, os.path.join(folder, c["old"]))
            if c["then"]:
                temp = os.path.join(folder, c["new"])
                with open(temp, "wb") as f:
                    f.write(bodies[c["path"]])
                os.chown(temp, c["then"]["uid"], c["then"]["gid"])
                os.chmod(temp, c["then"]["mode"])
                os.utime(temp, ns=(c["then"]["mtime"], c["then"]["mtime"]))
                fresh.append(temp)
        for temp in fresh:
            fsync(temp)
        for folder in sorted({os.path.dirname(t) for t in fresh}):
            fsync(folder)

    def commit(self, journal, parent):
        """Goes on from wherever it was left. The record is the last step: from then on there is no way back."""
        changed = [c["path"] for c in journal["changes"] if CACHE not in c["path"]]
        pending = load(self.unsettled) or []
        if not set(changed) <= set(pending):
            dump(self.unsettled, sorted(set(pending) | set(changed)))
        folders = set()
        for c in journal["changes"]:
            target = os.path.join(parent, c["path"])
            folder = os.path.dirname(target)
            folders.add(folder)
            temp = os.path.join(folder, c["new"])
            if c["then"] and os.path.lexists(temp):
                os.rename(temp, target)
            elif c["then"] is None and os.path.lexists(os.path.join(folder, c["old"])):
                remove(target)
        for folder in sorted(folders):
            if os.path.isdir(folder):
                fsync(folder)
        if journal["record"]:
            dump(self.recorded, journal["record"])
        else:
            remove(self.recorded)
        self.record = journal["record"]

    def finish(self, journal, parent):
        for c in journal["changes"]:
            remove(os.path.join(parent, os.path.dirname(c["path"]), c["old"]))
            if c["then"] is None and c["path"].endswith(".py"):
                self.sweep(parent, c["path"])
        for folder in journal["rmdirs"]:
            rmdir(os.path.join(parent, folder))
        self.done()

    def sweep(self, parent, path):
        """Removes what interpreters made of a source file that is no longer there."""
        folder, name = os.path.split(os.path.join(parent, path))
        caches = os.path.join(folder, CACHE)
        if not os.path.isdir(caches) or path in self.files():
            return
        for cache in os.listdir(caches):
            if cache.startswith(name[: -len("py")]) and cache.endswith(".pyc"):
                remove(os.path.join(caches, cache))

    def undo(self, journal, parent):
        """Goes back from wherever it was left. In the phase prepare no target was touched."""
        for c in journal["changes"]:
            target = os.path.join(parent, c["path"])
            folder = os.path.dirname(target)
            old = os.path.join(folder, c["old"])
            if journal["phase"] == "undo":
                if c["now"] and os.path.lexists(old):
                    os.rename(old, target)
                elif not c["now"]:
                    remove(target)
            try:
                remove(old)  # of two names of one file rename removes neither
                remove(os.path.join(folder, c["new"]))
            except NotADirectoryError:
                pass
        for folder in reversed(journal["mkdirs"]):
            rmdir(os.path.join(parent, folder))
        self.done()

    def done(self):
        remove(self.journal)
        if os.path.isdir(self.dir):
            fsync(self.dir)
        try:
            self.clean()
        except OSError:
            pass  # it is done; the next run cleans up

    def clean(self):
        """Removes what nothing needs any longer, at the end the component's folder."""
        if not os.path.isdir(self.dir):
            rmdir(STATE)
            return
        needed = {e["base"]["sha256"] for e in self.files().values() if e["base"]}
        if os.path.isdir(self.originals):
            for name in os.listdir(self.originals):
                if name not in needed:
                    remove(os.path.join(self.originals, name))
            if not needed:
                rmdir(self.originals)
        for name in os.listdir(self.dir):
            if name.endswith(".new"):
                remove(os.path.join(self.dir, name))
        rmdir(self.dir)
        rmdir(STATE)

    def mend(self, force):
        """Finishes or undoes what a killed run left. Returns which."""
        journal = load(self.journal)
        if journal is None:
            self.clean()
            return ""
        parent = os.path.dirname(journal["root"])
        if journal["phase"] != "commit":
            self.undo(journal, parent)
            self.record = load(self.recorded)
            return "undone"
        for c in journal["changes"]:
            target = os.path.join(parent, c["path"])
            self.walk(parent, c["path"].split("/"))
            open_ = os.path.lexists(os.path.join(os.path.dirname(target), c["new" if c["then"] else "old"]))
            now = look(target)
            if open_ and not force and CACHE not in c["path"] and not same(now, c["now"]) and not same(now, c["then"]):
                raise Refusal("this file was changed since a run was killed that was about to replace it", file=target,
                              remedy="keep a copy of it, then use force to finish that run")
        self.commit(journal, parent)
        self.finish(journal, parent)
        return "finished"

    # What is there.

    def state(self, path, entry, parent):
        target = os.path.join(parent, path)
        try:
            now = look(target)
        except Refusal:
            return "edited"
        if same(now, entry["laid"]):
            return "laid"
        if self.packages.has(target)[0]:
            return "replaced"
        return "edited"

    def told(self):
        """The record as others see it."""
        journal = load(self.journal)
        t = {"component": self.name, "unfinished": journal is not None, "pending": load(self.unsettled) or [], "root": "", "layers": [], "digest": "",
             "files": [], "at": 0}
        if self.record:
            t.update({k: self.record[k] for k in ("root", "layers", "digest", "at")})
            parent = self.parent()
            t["files"] = [{"path": p, "state": self.state(p, e, parent), "new": e["base"] is None, "absent": e["laid"] is None,
                           "sha256": e["laid"]["sha256"] if e["laid"] else ""}
                          for p, e in sorted(self.files().items()) if not e.get("cache")]
        return t


def rmdir(path):
    """Removes a folder when nothing is in it. What interpreters made in a folder of ours goes with it."""
    if os.path.basename(path) == CACHE and os.path.isdir(path):
        for name in os.listdir(path):
            source = os.path.join(os.path.dirname(path), name.split(".")[0] + ".py")
            if name.endswith(".pyc") and not os.path.exists(source):
                remove(os.path.join(path, name))
    elif os.path.isdir(path) and os.listdir(path) == [CACHE]:
        rmdir(os.path.join(path, CACHE))
    try:
        os.rmdir(path)
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise


# The verbs.


def lay(request, contents, partial=False, lift=False):
    component = Component(request["component"])
    force = request.get("force", False)
    mended = component.mend(force)
    kept, changes = [], []
    if component.record is not None or not lift:
        journal, bodies, kept = component.change(request, contents, partial, lift, force)
        if journal:
            changes = [c["path"] for c in journal["changes"] if CACHE not in c["path"]]
            component.perform(journal, bodies)
    pending = load(component.unsettled) or []
    return {"changed": changes, "pending": pending, "kept": kept, "mended": mended}, []


def amend(request, contents):
    return lay(request, contents, partial=True)


def lift(request, contents):
    return lay(request, contents, lift=True)


def settle(request, contents):
    component = Component(request["component"])
    remove(component.unsettled)
    if not os.path.exists(component.journal):
        component.clean()
    return {}, []


def components():
    return [Component(name) for name in sorted(os.listdir(STATE))] if os.path.isdir(STATE) else []


def laid(request, contents):
    mended = {}
    if request.get("mend"):
        for c in components():
            how = c.mend(request.get("force", False))
            if how:
                mended[c.name] = how
    return {"laid": [c.told() for c in components()], "mended": mended}, []


def below(root):
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f != CACHE)
        for name in sorted(names):
            if not name.endswith(".pyc") and not name.startswith(".toastdev-"):
                yield os.path.join(folder, name)


def installed(request, contents):
    """The package's files beneath what is laid, and what else is known of the component and its neighbours."""
    root = request["root"]
    parent = os.path.dirname(root)
    component = Component(request["component"])
    component.mend(False)
    component.lstat(root)
    laid = component.files()
    files = {}
    for target in below(root):
        path = os.path.relpath(target, parent)
        if path not in laid and not os.path.islink(target):
            files[path] = digest(read(target))
    for path, entry in laid.items():
        if entry.get("cache") or not path.startswith(os.path.basename(root) + "/"):
            continue
        base = look(os.path.join(parent, path)) if component.state(path, entry, parent) == "replaced" else entry["base"]
        if base:
            files[path] = base["sha256"]
    answer = {"files": files, "version": "", "entry_points": "", "distributions": {}}
    for name in os.listdir(parent):
        stem, kind = os.path.splitext(name)
        if kind in (".egg-info", ".dist-info") and "-" in stem:
            distribution, version = stem.split("-")[:2]
            answer["distributions"][distribution.replace("_", "-").replace(".", "-").lower()] = version
    metadata = component.metadata(parent)
    if metadata:
        answer["version"] = "".join(os.path.splitext(metadata)[0].split("-")[1:2])
        points = metadata + "/entry_points.txt"
        if points in laid:
            base = laid[points]["base"]
            answer["entry_points"] = component.original(os.path.join(parent, points), base).decode() if base else ""
        elif os.path.exists(os.path.join(parent, points)):
            answer["entry_points"] = read(os.path.join(parent, points)).decode()
    return answer, []


def fetch(request, contents):
    """The package's bytes of some paths, whatever is laid over them."""
    root = request["root"]
    parent = os.path.dirname(root)
    component = Component(request["component"])
    component.mend(False)
    bodies, sizes = [], {}
    for asked in request["paths"]:
        path = component.resolve(root, asked)
        entry = component.files().get(path)
        target = os.path.join(parent, path)
        if entry and component.state(path, entry, parent) == "replaced":
            entry = None
        base = entry["base"] if entry else look(target)
        if base is None:
            continue
        body = component.original(target, base) if entry else read(target)
        sizes[asked] = len(bodies)
        bodies.append(body)
    return {"paths": sizes}, bodies


def edits(request, contents):
    """What was changed by hand: files that are neither the package's nor as laid."""
    root = request["root"]
    parent = os.path.dirname(root)
    component = Component(request["component"])
    component.mend(False)
    files = component.files()
    found, bodies = [], []

    def note(path, target, over):
        content = read(target) if os.path.exists(target) else None
        found.append({"path": path, "over": over, "absent": content is None, "body": len(bodies)})
        if content is not None:
            bodies.append(content)

    for target in below(root):
        path = os.path.relpath(target, parent)
        if path in files:
            continue
        pristine, package = component.packages.has(target)
        if package and not pristine:
            note(path, target, "package")
        elif not package and component.packages.find(os.path.join(root, "__init__.py"))[0]:
            note(path, target, "")
    for path, entry in sorted(files.items()):
        if not entry.get("cache") and component.state(path, entry, parent) == "edited":
            note(path, os.path.join(parent, path), "laid")
    return {"edits": found}, bodies


VERBS = {"lay": lay, "amend": amend, "lift": lift, "settle": settle, "read": laid, "installed": installed, "fetch": fetch, "edits": edits}


def lock():
    """Takes the node's lock, which ends with this process."""

    def late(*_):
        raise TimeoutError

    fd = os.open(LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except TimeoutError:
        raise Refusal("another run has been at work on this node's code for %d seconds" % PATIENCE, "busy") from None
    finally:
        signal.alarm(0)


def main(verb):
    line = sys.stdin.buffer.readline()
    bodies = []
    try:
        if not line.endswith(b"\n"):
            raise Refusal("the request broke off")
        request = json.loads(line)
        contents = []
        for size in request.get("bodies", []):
            contents.append(sys.stdin.buffer.read(size))
            if len(contents[-1]) != size:
                raise Refusal("the request broke off")
        lock()
        answer, bodies = VERBS[verb](request, contents)
    except Refusal as e:
        answer = {"fault": e.fault}
    except OSError as e:
        answer = {"fault": {"code": "failed", "message": e.strerror or str(e), "file": e.filename or ""}}
    answer["bodies"] = [len(b) for b in bodies]
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    for body in bodies:
        sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()


main(sys.argv[1])
