"""openstack toast vpc create | delete | list | set | show | unset"""

import argparse
from typing import Any

from openstack import exceptions, resource
from osc_lib import utils
from osc_lib.command import command


class Vpc(resource.Resource):
    """As the API has it."""

    base_path = "/toast-vpcs"
    resource_key = "toast_vpc"
    resources_key = "toast_vpcs"
    allow_create = allow_fetch = allow_commit = allow_delete = allow_list = True
    commit_method = "PUT"
    _query_mapping = resource.QueryParameters("name", "cidr", "project_id")

    name = resource.Body("name")
    project_id = resource.Body("project_id")
    description = resource.Body("description")
    cidr = resource.Body("cidr")
    networks = resource.Body("networks", type=list)
    routers = resource.Body("routers", type=list)


COLUMNS = ("id", "name", "cidr", "networks", "routers")
DETAILS = ("id", "name", "description", "project_id", "cidr", "networks", "routers")
MEMBERS = {"networks": "find_network", "routers": "find_router"}


def _find(client: Any, name: str) -> Vpc:
    try:
        return Vpc.find(client, name, ignore_missing=False)
    except exceptions.ResourceNotFound:
        raise exceptions.ResourceNotFound(f"No VPC found for {name}") from None


def _members(client: Any, arguments: argparse.Namespace, kind: str) -> list[str]:
    """The ids of those that were named."""
    find = getattr(client, MEMBERS[kind])
    return [find(name, ignore_missing=False).id for name in getattr(arguments, kind) or []]


def _show(vpc: Vpc) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    return DETAILS, tuple(", ".join(value) if isinstance(value, list) else value for value in (vpc[name] for name in DETAILS))


def _add_members(parser: argparse.ArgumentParser, what: str) -> None:
    for kind in MEMBERS:
        one = kind[:-1]
        parser.add_argument(f"--{one}", dest=kind, metavar="<name or id>", action="append", help=f"{one} {what} (repeatable)")


class CreateVpc(command.ShowOne):
    """Create a VPC."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name")
        parser.add_argument("--cidr", required=True, help="the range that all its subnets are within")
        parser.add_argument("--description", default="")
        _add_members(parser, "of the VPC")
        return parser

    def take_action(self, arguments: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        client = self.app.client_manager.toast_vpc
        body = {name: getattr(arguments, name) for name in ("name", "cidr", "description")}
        return _show(Vpc.new(**body, **{kind: _members(client, arguments, kind) for kind in MEMBERS}).create(client))


class ListVpc(command.Lister):
    """List VPCs."""

    def take_action(self, arguments: argparse.Namespace) -> tuple[tuple[str, ...], Any]:
        rows = Vpc.list(self.app.client_manager.toast_vpc)
        formatters = {"networks": ", ".join, "routers": ", ".join}
        return COLUMNS, (utils.get_item_properties(row, COLUMNS, formatters=formatters) for row in rows)


class ShowVpc(command.ShowOne):
    """Show a VPC."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("vpc", metavar="<name or id>")
        return parser

    def take_action(self, arguments: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        return _show(_find(self.app.client_manager.toast_vpc, arguments.vpc))


class SetVpc(command.Command):
    """Change a VPC, or put networks and routers in it."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("vpc", metavar="<name or id>")
        for name in ("name", "cidr", "description"):
            parser.add_argument(f"--{name}")
        _add_members(parser, "to put in the VPC")
        return parser

    def take_action(self, arguments: argparse.Namespace) -> None:
        client = self.app.client_manager.toast_vpc
        vpc = _find(client, arguments.vpc)
        for name in ("name", "cidr", "description"):
            if getattr(arguments, name) is not None:
                setattr(vpc, name, getattr(arguments, name))
        for kind in MEMBERS:
            if getattr(arguments, kind):
                setattr(vpc, kind, sorted({*vpc[kind], *_members(client, arguments, kind)}))
        vpc.commit(client)


class UnsetVpc(command.Command):
    """Take networks and routers out of a VPC."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("vpc", metavar="<name or id>")
        _add_members(parser, "to take out of the VPC")
        return parser

    def take_action(self, arguments: argparse.Namespace) -> None:
        client = self.app.client_manager.toast_vpc
        vpc = _find(client, arguments.vpc)
        for kind in MEMBERS:
            if getattr(arguments, kind):
                setattr(vpc, kind, sorted(set(vpc[kind]) - set(_members(client, arguments, kind))))
        vpc.commit(client)


class DeleteVpc(command.Command):
    """Delete VPCs, which have no networks and routers any more."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("vpcs", metavar="<name or id>", nargs="+")
        return parser

    def take_action(self, arguments: argparse.Namespace) -> None:
        client = self.app.client_manager.toast_vpc
        for name in arguments.vpcs:
            _find(client, name).delete(client)
