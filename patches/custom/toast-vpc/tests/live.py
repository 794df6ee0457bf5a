"""
The life of the package in a real Neutron, from version 1 to its removal. Run as root in a node image that nobody needs any
more, with no network (`go test ./patches/custom` does):

    python3 -m unittest -v tests.live
"""

import collections
import json
import pathlib
import shutil
import subprocess
import threading
import time
import unittest
import urllib.error
import urllib.request
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
PARTS = ("toast_vpc", "toast_vpc.egg-info")
LIBRARY = pathlib.Path("/usr/lib/python3/dist-packages")
CONFIG = pathlib.Path("/etc/neutron/server.conf.d/toast-vpc.conf")
LOG = pathlib.Path("/var/log/neutron/neutron-server.log")
URL = "http://127.0.0.1:9696/v2.0"
DEADLINE = 120.0  # seconds, for each thing that is waited for

NEUTRON = """
[DEFAULT]
core_plugin = ml2
service_plugins = router
transport_url = fake:/
auth_strategy = noauth
api_paste_config = /etc/neutron/live-paste.ini
api_workers = 1
rpc_workers = 0
bind_host = 127.0.0.1
state_path = /var/lib/neutron
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
[database]
connection = mysql+pymysql://neutron:live@127.0.0.1/neutron
[oslo_concurrency]
lock_path = /var/lib/neutron/tmp
"""
ML2 = """
[ml2]
type_drivers = vxlan
tenant_network_types = vxlan
mechanism_drivers = openvswitch
[ml2_type_vxlan]
vni_ranges = 1:1000
"""
# Without Keystone before it, Neutron believes what a request's headers say of who sends it.
PASTE = """
[composite:neutron]
use = egg:Paste#urlmap
/v2.0: api
[composite:api]
use = call:neutron.auth:pipeline_factory
noauth = request_id catch_errors context extensions application
[filter:request_id]
paste.filter_factory = oslo_middleware:RequestId.factory
[filter:catch_errors]
paste.filter_factory = oslo_middleware:CatchErrors.factory
[filter:context]
paste.filter_factory = neutron.auth:NeutronKeystoneContext.factory
[filter:extensions]
paste.filter_factory = neutron.api.extensions:plugin_aware_extension_middleware_factory
[app:application]
paste.app_factory = neutron.api.v2.router:APIRouter.factory
"""


def run(*command: str, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def sql(query: str) -> list[str]:
    return run("mysql", "-N", "-e", query, "neutron").split("\n")[:-1]


def wait(what: str, condition: Any) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"no {what} after {DEADLINE:.0f} s")
        time.sleep(0.1)


def call(method: str, path: str, body: Any = None, *, project: str = "blue", roles: str = "member,reader") -> tuple[int, Any]:
    """The status, and the answer or its error's message."""
    headers = {"X-User-Id": "user", "X-Project-Id": project, "X-Roles": roles, "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        text = error.read()
        try:
            return error.code, json.loads(text)["NeutronError"]["message"]
        except ValueError:
            return error.code, text.decode()


class Server:
    """neutron-server, as its unit starts it."""

    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls) -> None:
        LOG.write_text("")
        shutil.chown(LOG, "neutron", "neutron")
        files = ["--config-file=/etc/neutron/neutron.conf", "--config-file=/etc/neutron/plugins/ml2/ml2_conf.ini"]
        options = [*files, f"--config-dir={CONFIG.parent}", f"--log-file={LOG}"]
        command = ["runuser", "-u", "neutron", "--", "/usr/bin/neutron-server", *options]
        cls.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        wait("answer of neutron-server", cls._answers)

    @classmethod
    def _answers(cls) -> bool:
        if cls.process is None or cls.process.poll() is not None:
            raise AssertionError(f"neutron-server has ended:\n{LOG.read_text()[-4000:]}")
        try:
            return call("GET", "/networks", roles="admin")[0] == 200
        except OSError:
            return False

    @classmethod
    def stop(cls) -> None:
        if cls.process is not None:
            cls.process.terminate()
            cls.process.wait(DEADLINE)
            cls.process = None


def install(version: int) -> None:
    remove_code()
    for part in PARTS:
        shutil.copytree(ROOT / part, LIBRARY / part)
    if version == 1:
        run("patch", "-s", "-p1", "-i", str(ROOT / "tests/version-1.patch"), cwd=LIBRARY)
    migrate = ["neutron-db-manage", "--subproject", "toast-vpc", "upgrade"]
    run("runuser", "-u", "neutron", "--", *migrate, "heads", cwd="/")


def remove_code() -> None:
    for part in PARTS:
        shutil.rmtree(LIBRARY / part, ignore_errors=True)


def setUpModule() -> None:
    pathlib.Path("/run/mysqld").mkdir(parents=True, exist_ok=True)
    shutil.chown("/run/mysqld", "mysql")
    database = subprocess.Popen(["mariadbd", "--user=mysql"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    unittest.addModuleCleanup(database.wait)
    unittest.addModuleCleanup(database.terminate)
    wait("MariaDB", lambda: subprocess.run(["mysqladmin", "ping"], capture_output=True, check=False).returncode == 0)
    # Neutron's own tables are in the image.
    run("mysql", "-e", "GRANT ALL ON neutron.* TO neutron@'%' IDENTIFIED BY 'live'")
    pathlib.Path("/etc/neutron/neutron.conf").write_text(NEUTRON)
    pathlib.Path("/etc/neutron/plugins/ml2/ml2_conf.ini").write_text(ML2)
    pathlib.Path("/etc/neutron/live-paste.ini").write_text(PASTE)
    unittest.addModuleCleanup(Server.stop)


class Life(unittest.TestCase):
    """In the order of the numbers. What one leaves, the next finds."""

    tables: list[str]

    def made(self, path: str, kind: str, **fields: Any) -> str:
        status, answer = call("POST", path, {kind: fields})
        self.assertEqual(status, 201, answer)
        return str(answer[kind]["id"])

    def vpc(self, **fields: Any) -> str:
        return self.made("/toast-vpcs", "toast_vpc", **fields)

    def network(self, *ranges: str) -> str:
        id = self.made("/networks", "network", name="network")
        for range in ranges:
            self.subnet(id, range)
        return id

    def subnet(self, network: str, range: str) -> str:
        return self.made("/subnets", "subnet", network_id=network, cidr=range, ip_version=4)

    def put(self, id: str, **fields: Any) -> tuple[int, Any]:
        return call("PUT", f"/toast-vpcs/{id}", {"toast_vpc": fields})

    def assertRefused(self, answer: tuple[int, Any], status: int, message: str) -> None:
        self.assertEqual(answer[0], status, answer[1])
        self.assertRegex(answer[1], message)

    def test_1_version_1(self) -> None:
        type(self).tables = sql("SHOW TABLES")
        install(1)
        CONFIG.write_text("[DEFAULT]\nservice_plugins = router,toast_vpc\n")
        Server.start()
        id = self.vpc(name="old", cidr="10.8.0.0/16", networks=[self.network("10.8.1.0/24")])
        self.assertRefused(self.put(id, routers=[]), 400, "Unrecognized attribute.*routers")

    def test_2_the_schema_is_upgraded_while_version_1_runs(self) -> None:
        install(2)
        self.assertEqual(sorted(sql("SELECT * FROM alembic_version_toast_vpc")), ["toast_vpc_2", "toast_vpc_contract"])
        id = self.vpc(name="late", cidr="10.9.0.0/16")
        self.assertEqual(call("DELETE", f"/toast-vpcs/{id}")[0], 204)

    def test_3_version_2_has_what_version_1_made(self) -> None:
        Server.stop()
        Server.start()
        (vpc,) = call("GET", "/toast-vpcs")[1]["toast_vpcs"]
        self.assertEqual((vpc["name"], len(vpc["networks"]), vpc["routers"], vpc["description"]), ("old", 1, [], ""))

    def test_4_neutrons_own_tools(self) -> None:
        for command in ("check_migration", "has_offline_migrations"):
            run("runuser", "-u", "neutron", "--", "neutron-db-manage", command, cwd="/")

    def test_5_create_list_show_update_delete(self) -> None:
        id = self.vpc(name="blue", cidr="10.20.3.1/16", description="sea")
        status, answer = call("GET", f"/toast-vpcs/{id}")
        self.assertEqual((status, answer["toast_vpc"]["cidr"]), (200, "10.20.0.0/16"))
        self.assertEqual(self.put(id, name="navy")[1]["toast_vpc"]["name"], "navy")
        found = call("GET", "/toast-vpcs?name=navy&fields=id")[1]["toast_vpcs"]
        self.assertEqual([vpc["id"] for vpc in found], [id])
        page = "/toast-vpcs?name=navy&name=old&sort_key=name&sort_dir=asc&limit=1"
        self.assertEqual([vpc["name"] for vpc in call("GET", page)[1]["toast_vpcs"]], ["navy"])
        self.assertEqual([vpc["name"] for vpc in call("GET", f"{page}&marker={id}")[1]["toast_vpcs"]], ["old"])
        self.assertEqual(call("DELETE", f"/toast-vpcs/{id}")[0], 204)
        self.assertRefused(call("GET", f"/toast-vpcs/{id}"), 404, "could not be found")
        for fields, message in [
            ({"name": "x"}, "cidr"),
            ({"cidr": "10.8.0.0/33"}, "not a valid IP subnet"),
            ({"cidr": "10.8.0.0"}, "10.8.0.0/32' is recommended"),
            ({"cidr": None}, "not a valid IP subnet"),
            ({"cidr": "10.0.0.0/8", "networks": ["x"]}, "not a valid UUID"),
            ({"cidr": "10.0.0.0/8", "colour": "red"}, "colour"),
        ]:
            with self.subTest(fields):
                self.assertRefused(call("POST", "/toast-vpcs", {"toast_vpc": fields}), 400, message)

    def test_5_policy(self) -> None:
        id = self.vpc(name="mine", cidr="10.0.0.0/8")
        body = {"toast_vpc": {"name": "x", "cidr": "10.0.0.0/8"}}
        self.assertRefused(call("POST", "/toast-vpcs", body, roles="reader"), 403, "create_toast_vpc")
        self.assertRefused(call("PUT", f"/toast-vpcs/{id}", body, roles="reader"), 403, "update_toast_vpc")
        self.assertRefused(call("DELETE", f"/toast-vpcs/{id}", roles="reader"), 403, "delete_toast_vpc")
        self.assertEqual(call("GET", f"/toast-vpcs/{id}", roles="reader")[0], 200)
        for method in ("GET", "DELETE", "PUT"):
            self.assertEqual(call(method, f"/toast-vpcs/{id}", body if method == "PUT" else None, project="red")[0], 404, method)
        self.assertEqual(call("GET", "/toast-vpcs", project="red")[1], {"toast_vpcs": []})
        self.assertEqual(call("DELETE", f"/toast-vpcs/{id}", project="red", roles="admin")[0], 204)

    def test_5_subnets_are_within_the_range(self) -> None:
        inside, outside = self.network("10.30.1.0/24"), self.network("10.31.1.0/24")
        id = self.vpc(cidr="10.30.0.0/16", networks=[inside])
        self.assertRefused(self.put(id, networks=[inside, outside]), 409, "10.31.1.0/24")
        for range, version in (("10.31.2.0/24", 4), ("fd00::/64", 6)):
            body = {"subnet": {"network_id": inside, "cidr": range, "ip_version": version}}
            self.assertRefused(call("POST", "/subnets", body), 409, "not within 10.30.0.0/16")
        self.subnet(inside, "10.30.2.0/24")
        self.assertRefused(self.put(id, cidr="10.30.0.0/23"), 409, "10.30.2.0/24")
        self.assertEqual(self.put(id, cidr="10.30.0.0/15", networks=[inside, outside])[0], 200)
        self.assertRefused(call("DELETE", f"/toast-vpcs/{id}"), 409, "has networks")
        other = {"toast_vpc": {"cidr": "10.0.0.0/8", "networks": [inside]}}
        self.assertRefused(call("POST", "/toast-vpcs", other), 409, f"is in VPC {id}")
        foreign = call("POST", "/networks", {"network": {"name": "foreign"}}, project="red")[1]["network"]["id"]
        self.assertRefused(self.put(id, networks=[foreign]), 404, "has no network")
        self.assertEqual(call("DELETE", f"/networks/{outside}")[0], 204)
        self.assertEqual(call("GET", f"/toast-vpcs/{id}")[1]["toast_vpc"]["networks"], [inside])

    def test_5_a_subnet_from_a_pool(self) -> None:
        pool = self.made("/subnetpools", "subnetpool", name="pool", prefixes=["10.60.0.0/16"], default_prefixlen=24)
        network = self.network()
        id = self.vpc(cidr="10.61.0.0/16", networks=[network])
        body = {"subnet": {"network_id": network, "subnetpool_id": pool, "ip_version": 4}}
        self.assertRefused(call("POST", "/subnets", body), 409, "10.60.0.0/24")
        self.assertEqual(self.put(id, cidr="10.60.0.0/16")[0], 200)
        self.assertEqual(call("POST", "/subnets", body)[1]["subnet"]["cidr"], "10.60.0.0/24", "the refused one went back to the pool")

    def test_5_interfaces_are_in_the_networks(self) -> None:
        inside, outside = self.network(), self.network()
        in_subnet, out_subnet = self.subnet(inside, "10.40.1.0/24"), self.subnet(outside, "10.41.1.0/24")
        router = self.made("/routers", "router", name="router")
        id = self.vpc(cidr="10.40.0.0/16", networks=[inside])
        add, remove = f"/routers/{router}/add_router_interface", f"/routers/{router}/remove_router_interface"
        self.assertEqual(call("PUT", add, {"subnet_id": out_subnet})[0], 200)
        self.assertRefused(self.put(id, routers=[router]), 409, "an interface in network")
        self.assertEqual(call("PUT", remove, {"subnet_id": out_subnet})[0], 200)
        self.assertEqual(self.put(id, routers=[router])[0], 200)
        self.assertRefused(call("PUT", add, {"subnet_id": out_subnet}), 409, "an interface in network")
        self.assertEqual(call("GET", f"/ports?network_id={outside}")[1]["ports"], [])
        self.assertEqual(call("PUT", add, {"subnet_id": in_subnet})[0], 200)
        self.assertRefused(self.put(id, networks=[]), 409, "an interface in network")

    def test_6_a_subnet_and_a_membership_at_once(self) -> None:
        seen: collections.Counter[tuple[int, int]] = collections.Counter()
        for _ in range(8):
            network, id = self.network(), self.vpc(cidr="10.70.0.0/16")
            subnet = {"subnet": {"network_id": network, "cidr": "10.71.0.0/24", "ip_version": 4}}
            status = {}
            threads = [
                threading.Thread(target=lambda id=id, network=network: status.update(join=self.put(id, networks=[network])[0])),
                threading.Thread(target=lambda subnet=subnet: status.update(subnet=call("POST", "/subnets", subnet)[0])),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seen[status["join"], status["subnet"]] += 1
        self.assertLessEqual(set(seen), {(200, 409), (409, 201)})

    def test_7_no_error_is_in_the_log(self) -> None:
        self.assertEqual([line for line in LOG.read_text().splitlines() if " ERROR " in line], [])

    def test_9_removed_without_a_trace(self) -> None:
        Server.stop()
        CONFIG.unlink()
        for table in ("toast_vpc_routers", "toast_vpc_networks", "toast_vpcs", "alembic_version_toast_vpc"):
            sql(f"DROP TABLE {table}")
        remove_code()
        Server.start()
        self.assertEqual(call("GET", "/toast-vpcs", roles="admin")[0], 404)
        self.assertEqual(sql("SHOW TABLES"), self.tables)


if __name__ == "__main__":
    unittest.main(verbosity=2)
