"""Neutron's service plugin."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2
from neutron.db.models import l3 as l3_models
from neutron_lib import constants
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.db import api as db_api
from neutron_lib.db import model_query
from neutron_lib.db import utils as db_utils
from neutron_lib.services import base
from sqlalchemy.orm import exc as orm_exc

from toast_vpc import (
    cidr,
    definition,
    exceptions,
    extensions,  # noqa: F401, where Neutron looks for API extensions
)
from toast_vpc.db import models


def _dict(vpc: models.Vpc, fields: list[str] | None = None) -> dict[str, Any]:
    """As the API shows it."""
    shown = {
        "id": vpc.id,
        "project_id": vpc.project_id,
        "tenant_id": vpc.project_id,
        "name": vpc.name,
        "description": vpc.description,
        "cidr": vpc.cidr,
        "networks": sorted(member.network_id for member in vpc.networks),
        "routers": sorted(member.router_id for member in vpc.routers),
    }
    return db_utils.resource_fields(shown, fields)


def _get(context: Any, id: str) -> models.Vpc:
    """A VPC that the caller may see, or VpcNotFound."""
    try:
        return model_query.get_by_id(context, models.Vpc, id)
    except orm_exc.NoResultFound:
        raise exceptions.VpcNotFound(id=id) from None


@registry.has_registry_receivers
class VpcPlugin(base.ServicePluginBase):
    """
    Keeps VPCs, and what holds of them: their networks' subnets are within their range, their routers' interfaces are in their
    networks.
    """

    supported_extension_aliases = [definition.ALIAS]

    # What Neutron asks a plugin by a name with its class's in it.
    __native_bulk_support = False
    __native_pagination_support = True
    __native_sorting_support = True
    __filter_validation_support = True

    def __init__(self) -> None:
        super().__init__()
        # Neutron says nothing of a subnet between the choice of its range, which may be a pool's, and its commit.
        db_api.sqla_listen(models_v2.Subnet, "before_insert", check_new_subnet)

    @classmethod
    def get_plugin_type(cls) -> str:
        return definition.ALIAS

    def get_plugin_description(self) -> str:
        return definition.DESCRIPTION

    def get_toast_vpcs(
        self,
        context: Any,
        filters: dict[str, Any] | None = None,
        fields: list[str] | None = None,
        sorts: list[tuple[str, bool]] | None = None,
        limit: int | None = None,
        marker: str | None = None,
        page_reverse: bool = False,
    ) -> list[dict[str, Any]]:
        with db_api.CONTEXT_READER.using(context):
            return model_query.get_collection(
                context,
                models.Vpc,
                _dict,
                filters=filters,
                fields=fields,
                sorts=sorts,
                limit=limit,
                marker_obj=_get(context, marker) if limit and marker else None,
                page_reverse=page_reverse,
            )

    def get_toast_vpc(self, context: Any, id: str, fields: list[str] | None = None) -> dict[str, Any]:
        with db_api.CONTEXT_READER.using(context):
            return _dict(_get(context, id), fields)

    @db_api.retry_if_session_inactive()
    def create_toast_vpc(self, context: Any, toast_vpc: dict[str, Any]) -> dict[str, Any]:
        wanted = toast_vpc[definition.RESOURCE_NAME]
        with db_api.CONTEXT_WRITER.using(context):
            vpc = models.Vpc(
                project_id=wanted["project_id"],
                name=wanted["name"],
                description=wanted["description"],
                cidr=wanted["cidr"],
            )
            context.session.add(vpc)
            context.session.flush()  # it has its id now
            return self._converge(context, vpc, wanted)

    @db_api.retry_if_session_inactive()
    def update_toast_vpc(self, context: Any, id: str, toast_vpc: dict[str, Any]) -> dict[str, Any]:
        wanted = toast_vpc[definition.RESOURCE_NAME]
        with db_api.CONTEXT_WRITER.using(context):
            vpc = _get(context, id)
            # What is checked below against the range holds until the commit: see check_new_subnet.
            context.session.query(models.Vpc.id).filter_by(id=id).with_for_update().one()
            for name in {"name", "description", "cidr"} & set(wanted):
                setattr(vpc, name, wanted[name])
            return self._converge(context, vpc, wanted)

    @db_api.retry_if_session_inactive()
    def delete_toast_vpc(self, context: Any, id: str) -> None:
        with db_api.CONTEXT_WRITER.using(context):
            vpc = _get(context, id)
            if vpc.networks or vpc.routers:
                raise exceptions.VpcInUse(id=id)
            context.session.delete(vpc)

    def _converge(self, context: Any, vpc: models.Vpc, wanted: dict[str, Any]) -> dict[str, Any]:
        """Gives a VPC the members it is to have, and checks what then holds."""
        if "networks" in wanted:
            vpc.networks = self._members(context, vpc, models_v2.Network, models.VpcNetwork, "network", wanted["networks"])
        if "routers" in wanted:
            vpc.routers = self._members(context, vpc, l3_models.Router, models.VpcRouter, "router", wanted["routers"])
        context.session.flush()
        networks = {member.network_id for member in vpc.networks}
        # Locking reads, here and below, see what others have committed since this transaction began.
        subnets = (
            context.session.query(models_v2.Subnet.id, models_v2.Subnet.network_id, models_v2.Subnet.cidr)
            .filter(models_v2.Subnet.network_id.in_(networks))
            .with_for_update(read=True)
        )
        for subnet in subnets:
            check_subnet(subnet.id, subnet.network_id, subnet.cidr, vpc)
        interfaces = (
            context.session.query(l3_models.RouterPort.router_id, models_v2.Port.network_id)
            .join(models_v2.Port, models_v2.Port.id == l3_models.RouterPort.port_id)
            .filter(
                l3_models.RouterPort.router_id.in_({member.router_id for member in vpc.routers}),
                l3_models.RouterPort.port_type.in_(constants.ROUTER_INTERFACE_OWNERS),
                models_v2.Port.network_id.notin_(networks),
            )
        )
        for interface in interfaces:
            raise exceptions.InterfaceOutside(router=interface.router_id, vpc=vpc.id, network=interface.network_id)
        return _dict(vpc)

    def _members(self, context: Any, vpc: models.Vpc, model: Any, member: Any, kind: str, ids: Iterable[str]) -> list[Any]:
        """The VPC's rows of one table of members: those it has, and new ones for what of its project is not in a VPC yet."""
        of = f"{kind}_id"
        had = {getattr(row, of): row for row in getattr(vpc, f"{kind}s")}
        new = sorted(set(ids) - set(had))
        # Locked: a subnet that comes into a network just now is seen here, or sees here.
        found = context.session.query(model.id).filter(model.id.in_(new), model.project_id == vpc.project_id).with_for_update()
        missing = set(new) - {row.id for row in found}
        if missing:
            raise exceptions.MemberNotFound(project=vpc.project_id, kind=kind, id=min(missing))
        taken = context.session.query(member).filter(getattr(member, of).in_(new)).first()
        if taken:
            raise exceptions.MemberOfAnother(kind=kind.capitalize(), id=getattr(taken, of), vpc=taken.vpc_id)
        return [had[id] if id in had else member(**{of: id}) for id in sorted(set(ids))]

    @registry.receives(resources.ROUTER_INTERFACE, [events.BEFORE_CREATE])
    def check_new_interface(self, resource: str, event: str, trigger: Any, payload: Any) -> None:
        """Refuses a VPC's router an interface in a network that is not the VPC's."""
        router, network = payload.resource_id, payload.metadata["network_id"]
        with db_api.CONTEXT_READER.using(payload.context):
            session = payload.context.session
            of_router = session.get(models.VpcRouter, router)
            if not of_router:
                return
            of_network = session.get(models.VpcNetwork, network)
            if not of_network or of_network.vpc_id != of_router.vpc_id:
                raise exceptions.InterfaceOutside(router=router, vpc=of_router.vpc_id, network=network)


def check_subnet(id: str, network: str, range: Any, vpc: Any) -> None:
    """Raises SubnetOutside."""
    if not cidr.within(str(range), vpc.cidr):
        raise exceptions.SubnetOutside(subnet=f"{id} ({range})", network=network, cidr=vpc.cidr, vpc=vpc.id)


def check_new_subnet(mapper: Any, connection: Any, subnet: models_v2.Subnet) -> None:
    """Refuses a subnet outside its VPC's range, in the transaction that makes it: its network joins no VPC meanwhile."""
    connection.execute(sa.select(models_v2.Network.id).where(models_v2.Network.id == subnet.network_id).with_for_update())
    vpc = connection.execute(
        sa.select(models.Vpc.id, models.Vpc.cidr)
        .join(models.VpcNetwork, models.VpcNetwork.vpc_id == models.Vpc.id)
        .where(models.VpcNetwork.network_id == subnet.network_id)
        .with_for_update(read=True)
    ).first()
    if vpc:
        check_subnet(subnet.id, subnet.network_id, subnet.cidr, vpc)
