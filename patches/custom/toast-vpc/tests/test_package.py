"""What the package's parts say of one another, read from its files: nothing of Neutron's need be here."""

import ast
import configparser
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).parent.parent
VERSIONS = ROOT / "toast_vpc/db/migration/alembic_migrations/versions"
STATE = ROOT.parents[2] / "salt/states/vpc/init.sls"


def names(file: pathlib.Path) -> set[str]:
    """What a module defines."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
    return found


def assigned(file: pathlib.Path) -> dict[str, object]:
    """A module's constants."""
    found = {}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant):
            found[node.targets[0].id] = node.value.value
    return found


class EntryPoints(unittest.TestCase):
    def test_each_leads_to_something(self) -> None:
        entry_points = configparser.ConfigParser(delimiters="=")
        entry_points.read(ROOT / "toast_vpc.egg-info/entry_points.txt")
        self.assertIn("neutron.service_plugins", entry_points)
        for group in entry_points.sections():
            for name, target in entry_points[group].items():
                with self.subTest(group=group, name=name):
                    module, _, attribute = target.partition(":")
                    path = ROOT / module.replace(".", "/")
                    if attribute and (path / attribute).is_dir():
                        continue  # a package, as Neutron wants migrations
                    file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
                    self.assertTrue(file.exists(), file)
                    if attribute:
                        self.assertIn(attribute, names(file))


class Migrations(unittest.TestCase):
    def setUp(self) -> None:
        self.revisions = {}  # what each follows, by its name
        for file in VERSIONS.rglob("*.py"):
            constants = assigned(file)
            self.assertEqual(constants["revision"], file.stem, file)
            self.assertNotIn(constants["revision"], self.revisions)
            self.revisions[constants["revision"]] = constants["down_revision"]

    def test_heads(self) -> None:
        heads = {(VERSIONS / branch).read_text().strip() for branch in ("EXPAND_HEAD", "CONTRACT_HEAD")}
        self.assertEqual(set(self.revisions) - set(self.revisions.values()), heads)

    def test_one_beginning(self) -> None:
        self.assertEqual([name for name, before in self.revisions.items() if before is None], ["toast_vpc_start"])

    def test_names_fit_the_table_of_versions(self) -> None:
        for name in self.revisions:
            self.assertLessEqual(len(name), 32)

    def test_all_tables_are_dropped_again(self) -> None:
        tables = {assigned(ROOT / "toast_vpc/db/migration/alembic_migrations/env.py")["VERSION_TABLE"]}
        for file in VERSIONS.rglob("*.py"):
            for call in ast.walk(ast.parse(file.read_text())):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "create_table":
                    tables.add(ast.literal_eval(call.args[0]))
        state = STATE.read_text()
        dropped = state[state.index("tables: [") + len("tables: [") :].partition("]")[0]
        self.assertEqual(set(dropped.split(", ")), tables)


class Version1(unittest.TestCase):
    """version-1.patch makes version 1 of the package, so that an upgrade can be tried."""

    @unittest.skipUnless(shutil.which("git"), "no git on this machine")
    def test_the_patch_applies(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for part in ("toast_vpc", "toast_vpc.egg-info"):
                shutil.copytree(ROOT / part, pathlib.Path(folder, part), ignore=shutil.ignore_patterns("__pycache__"))
            patch = ROOT / "tests/version-1.patch"
            applied = subprocess.run(["git", "apply", patch], cwd=folder, capture_output=True, text=True)
            self.assertEqual(applied.returncode, 0, applied.stderr)
            self.assertIn("\nVersion: 1\n", pathlib.Path(folder, "toast_vpc.egg-info/PKG-INFO").read_text())
            for file in pathlib.Path(folder).rglob("*.py"):
                ast.parse(file.read_text(), str(file))
