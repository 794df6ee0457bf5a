"""
OpenStack's objects, made and kept by one authenticated session for a whole run: what takes an `openstack` command a
second of imports and two of requests takes milliseconds here.

The session is the region's admin, from the pillar: `api:name`, `region`, `secrets:admin`. `patience` says how many times
as long as usual things take in this region.
"""

import time

from keystoneauth1 import exceptions, session
from keystoneauth1.adapter import Adapter
from keystoneauth1.identity import v3

# Seconds that a service may take from its start to its first answer, on a machine with much else to do, and for one answer.
DEADLINE = 120
TIMEOUT = 60


def __virtual__():
    return "openstack"


def _patient(seconds):
    return seconds * __pillar__["patience"]


def _password(user, password, project):
    return v3.Password(
        auth_url="http://%s:5000/v3" % __pillar__["api"]["name"],
        username=user,
        password=password,
        project_name=project,
        user_domain_id="default",
        project_domain_id="default",
    )


def _adapter(service_type):
    """An adapter to a service, once it answers; the same one for all states of the run."""
    key = "openstack." + service_type
    if key not in __context__:
        try:
            __context__[key] = _connect(service_type)
        except exceptions.ClientException as error:
            # The other states of this run need not wait as long for the same answer.
            __context__[key] = error
    if isinstance(__context__[key], Exception):
        raise __context__[key]
    return __context__[key]


def _connect(service_type):
    if "openstack.session" not in __context__:
        __context__["openstack.session"] = session.Session(
            auth=_password("admin", __pillar__["secrets"]["admin"], "admin"), timeout=_patient(TIMEOUT)
        )
    adapter = Adapter(
        __context__["openstack.session"],
        service_type=service_type,
        interface="internal",
        region_name=__pillar__["region"],
    )
    until = time.monotonic() + _patient(DEADLINE)
    while True:
        try:
            adapter.get("/")
            return adapter
        except (
            exceptions.ConnectFailure,
            exceptions.EndpointNotFound,
            exceptions.HttpServerError,
            exceptions.DiscoveryFailure,
        ):
            if time.monotonic() > until:
                raise
            # With the token goes the catalog, which may be older than what this run put in it.
            adapter.invalidate()
            time.sleep(0.2)


def _list(kind, **query):
    """Keystone's objects of a kind, asked for once in a run."""
    key = "openstack.list.%s.%s" % (kind, sorted(query.items()))
    if key not in __context__:
        __context__[key] = _adapter("identity").get("/" + kind, params=query).json()[kind]
    return __context__[key]


def _find(kind, name, **query):
    for item in _list(kind, **query):
        if item["name"] == name:
            return item
    return None


def _create(kind, single, body, **query):
    item = _adapter("identity").post("/" + kind, json={single: body}).json()[single]
    _list(kind, **query).append(item)
    return item


def _run(name, converge):
    """What a state returns, of `converge`, which returns the changes and in test mode makes none."""
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    try:
        ret["changes"] = converge(bool(__opts__["test"]))
    except exceptions.ClientException as error:
        ret["result"] = False
        ret["comment"] = "%s: %s" % (type(error).__name__, error)
        return ret
    if not ret["changes"]:
        ret["comment"] = "As it should be"
    elif __opts__["test"]:
        ret["result"] = None
        ret["comment"] = "Would change"
    else:
        ret["comment"] = "Changed"
    return ret


def role_present(name):
    """A role of that name."""

    def converge(test):
        if _find("roles", name):
            return {}
        if not test:
            _create("roles", "role", {"name": name})
        return {"role": "created"}

    return _run(name, converge)


def project_present(name, description=""):
    """A project of that name in the default domain."""

    def converge(test):
        if _find("projects", name, domain_id="default"):
            return {}
        if not test:
            body = {"name": name, "description": description, "domain_id": "default"}
            _create("projects", "project", body, domain_id="default")
        return {"project": "created"}

    return _run(name, converge)


def user_present(name, password, project, roles):
    """A user of the default domain who authenticates with `password` and has `roles` in `project`."""

    def converge(test):
        changes = {}
        identity = _adapter("identity")
        user = _find("users", name, domain_id="default")
        if not user:
            changes["user"] = "created"
            if test:
                return changes
            body = {"name": name, "password": password, "domain_id": "default"}
            user = _create("users", "user", body, domain_id="default")
        else:
            # Keystone tells nobody a password: whether it is this one, only a login shows.
            login = v3.Password(
                auth_url="http://%s:5000/v3" % __pillar__["api"]["name"],
                user_id=user["id"],
                password=password,
                unscoped=True,
            )
            try:
                login.get_access(session.Session(timeout=_patient(TIMEOUT)))
            except exceptions.Unauthorized:
                changes["password"] = "set"
                if not test:
                    identity.patch("/users/" + user["id"], json={"user": {"password": password, "enabled": True}})
        target = _find("projects", project, domain_id="default")
        if not target:
            return dict(changes, roles=roles)
        path = "/projects/%s/users/%s/roles" % (target["id"], user["id"])
        held = set() if changes.get("user") else {role["name"] for role in identity.get(path).json()["roles"]}
        missing = [role for role in roles if role not in held]
        if missing:
            changes["roles"] = missing
        if not test:
            for role in missing:
                identity.put("%s/%s" % (path, _find("roles", role)["id"]))
        return changes

    return _run(name, converge)


def service_present(name, type, public, internal, admin):
    """A service in the catalog, with its three endpoints in the pillar's region."""

    def converge(test):
        changes = {}
        service = _find("services", name)
        if not service:
            changes["service"] = "created"
            if not test:
                service = _create("services", "service", {"name": name, "type": type})
        region = __pillar__["region"]
        for interface, url in (("public", public), ("internal", internal), ("admin", admin)):
            found = [
                endpoint
                for endpoint in _list("endpoints")
                if service
                and endpoint["service_id"] == service["id"]
                and endpoint["interface"] == interface
                and endpoint["region_id"] == region
            ]
            if found and found[0]["url"] == url:
                continue
            changes[interface] = {"old": found[0]["url"] if found else None, "new": url}
            if test:
                continue
            body = {"service_id": service["id"], "interface": interface, "region_id": region, "url": url}
            if found:
                _adapter("identity").patch("/endpoints/" + found[0]["id"], json={"endpoint": body})
                found[0]["url"] = url
            else:
                _create("endpoints", "endpoint", body)
        return changes

    return _run(name, converge)


def flavor_present(name, vcpus, ram, disk, properties=None):
    """A public flavor: `ram` in MiB, `disk` in GiB. Nova changes no flavor: one with other sizes is made anew."""

    def converge(test):
        compute = _adapter("compute")
        key = "openstack.flavors"
        if key not in __context__:
            __context__[key] = compute.get("/flavors/detail", params={"is_public": "None"}).json()["flavors"]
        want = {"vcpus": vcpus, "ram": ram, "disk": disk}
        found = [flavor for flavor in __context__[key] if flavor["name"] == name]
        if found and {size: found[0][size] for size in want} == want:
            return {}
        if test:
            return {"flavor": want}
        if found:
            compute.delete("/flavors/" + found[0]["id"])
        flavor = compute.post("/flavors", json={"flavor": dict(want, name=name)}).json()["flavor"]
        if properties:
            compute.post("/flavors/%s/os-extra_specs" % flavor["id"], json={"extra_specs": properties})
        return {"flavor": want}

    return _run(name, converge)
