"""What the API refuses, and with which status."""

from neutron_lib import exceptions


class VpcNotFound(exceptions.NotFound):
    message = "VPC %(id)s could not be found."


class MemberNotFound(exceptions.NotFound):
    """Another project's is not there either, so that nobody learns what others have."""

    message = "Project %(project)s has no %(kind)s %(id)s."


class VpcInUse(exceptions.InUse):
    message = "VPC %(id)s has networks or routers."


class MemberOfAnother(exceptions.Conflict):
    message = "%(kind)s %(id)s is in VPC %(vpc)s."


class SubnetOutside(exceptions.Conflict):
    message = "Subnet %(subnet)s of network %(network)s is not within %(cidr)s, the range of VPC %(vpc)s."


class InterfaceOutside(exceptions.Conflict):
    message = "Router %(router)s of VPC %(vpc)s has or would have an interface in network %(network)s, which is not in it."
