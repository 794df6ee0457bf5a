"""The tables. Each is named toast_vpc*, and refers to Neutron's, never the other way: to remove the package is to drop them."""

import sqlalchemy as sa
from neutron_lib.db import constants as sizes
from neutron_lib.db import model_base
from sqlalchemy import orm


class VpcNetwork(model_base.BASEV2):
    """A network is in one VPC at most, and leaves it when it is deleted."""

    __tablename__ = "toast_vpc_networks"

    network_id = sa.Column(sa.String(36), sa.ForeignKey("networks.id", ondelete="CASCADE"), primary_key=True)
    vpc_id = sa.Column(sa.String(36), sa.ForeignKey("toast_vpcs.id"), nullable=False, index=True)


class VpcRouter(model_base.BASEV2):
    """A router is in one VPC at most, and leaves it when it is deleted."""

    __tablename__ = "toast_vpc_routers"

    router_id = sa.Column(sa.String(36), sa.ForeignKey("routers.id", ondelete="CASCADE"), primary_key=True)
    vpc_id = sa.Column(sa.String(36), sa.ForeignKey("toast_vpcs.id"), nullable=False, index=True)


class Vpc(model_base.BASEV2, model_base.HasId, model_base.HasProject):
    __tablename__ = "toast_vpcs"

    name = sa.Column(sa.String(sizes.NAME_FIELD_SIZE), nullable=False)
    description = sa.Column(sa.String(sizes.DESCRIPTION_FIELD_SIZE), nullable=False, server_default="")
    cidr = sa.Column(sa.String(64), nullable=False)
    networks = orm.relationship(VpcNetwork, lazy="selectin", cascade="all, delete-orphan")
    routers = orm.relationship(VpcRouter, lazy="selectin", cascade="all, delete-orphan")
