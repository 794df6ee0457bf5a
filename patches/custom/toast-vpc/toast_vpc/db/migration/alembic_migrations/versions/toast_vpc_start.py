"""Where the branches begin: expand, which a running server does not mind, and contract, which it does."""

revision = "toast_vpc_start"
down_revision = None


def upgrade() -> None:
    pass
