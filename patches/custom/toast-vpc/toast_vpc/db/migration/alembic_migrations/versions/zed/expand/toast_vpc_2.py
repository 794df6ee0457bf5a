"""Routers, and a description. A server of version 1 goes on with this: it writes no description, which has a default."""

import sqlalchemy as sa
from alembic import op

revision = "toast_vpc_2"
down_revision = "toast_vpc_1"


def upgrade() -> None:
    op.add_column("toast_vpcs", sa.Column("description", sa.String(255), nullable=False, server_default=""))
    op.create_table(
        "toast_vpc_routers",
        sa.Column("router_id", sa.String(36), sa.ForeignKey("routers.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("vpc_id", sa.String(36), sa.ForeignKey("toast_vpcs.id"), nullable=False, index=True),
    )
