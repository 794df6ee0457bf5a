"""Nothing has been taken away yet."""

from neutron.db.migration import cli

revision = "toast_vpc_contract"
down_revision = "toast_vpc_start"
branch_labels = (cli.CONTRACT_BRANCH,)


def upgrade() -> None:
    pass
