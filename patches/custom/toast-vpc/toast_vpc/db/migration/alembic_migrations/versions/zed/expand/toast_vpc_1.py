"""VPCs and their networks."""

import sqlalchemy as sa
from alembic import op
from neutron.db.migration import cli

revision = "toast_vpc_1"
down_revision = "toast_vpc_start"
branch_labels = (cli.EXPAND_BRANCH,)


def upgrade() -> None:
    op.create_table(
        "toast_vpcs",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(255), index=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("cidr", sa.String(64), nullable=False),
    )
    op.create_table(
        "toast_vpc_networks",
        sa.Column("network_id", sa.String(36), sa.ForeignKey("networks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("vpc_id", sa.String(36), sa.ForeignKey("toast_vpcs.id"), nullable=False, index=True),
    )
