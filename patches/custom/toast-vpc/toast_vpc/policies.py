"""Who may do what: members of a project with its VPCs, its readers look at them, admins do all."""

from neutron.conf.policies import base
from oslo_policy import policy

PATH = "/toast-vpcs"
MEMBER = base.policy_or(base.ADMIN, base.PROJECT_MEMBER)
READER = base.policy_or(base.ADMIN, base.PROJECT_READER)


def _rule(name: str, who: str, description: str, *operations: tuple[str, str]) -> policy.DocumentedRuleDefault:
    return policy.DocumentedRuleDefault(
        name=name,
        check_str=who,
        scope_types=["project"],
        description=description,
        operations=[{"method": method, "path": path} for method, path in operations],
    )


def list_rules() -> list[policy.DocumentedRuleDefault]:
    """The defaults, which /etc/neutron/policy.d has the last word on."""
    return [
        _rule("create_toast_vpc", MEMBER, "Create a VPC", ("POST", PATH)),
        _rule("get_toast_vpc", READER, "Get VPCs", ("GET", PATH), ("GET", PATH + "/{id}")),
        _rule("update_toast_vpc", MEMBER, "Update a VPC, its networks and routers", ("PUT", PATH + "/{id}")),
        _rule("delete_toast_vpc", MEMBER, "Delete a VPC", ("DELETE", PATH + "/{id}")),
    ]
