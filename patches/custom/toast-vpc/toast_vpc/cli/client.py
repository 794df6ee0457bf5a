"""What lets `openstack` have commands of ours: it finds them by the entry points openstack.cli.extension and openstack.toast_vpc.v2."""

import argparse
from typing import Any

API_NAME = "toast_vpc"
API_VERSION_OPTION = "os_toast_vpc_api_version"
DEFAULT_API_VERSION = "2"
API_VERSIONS = {"2": "toast_vpc.cli.client"}


def make_client(instance: Any) -> Any:
    """What requests go through: Neutron's own client, which authenticates and finds the endpoint."""
    return instance.sdk_connection.network


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--os-toast-vpc-api-version", default=DEFAULT_API_VERSION, help=argparse.SUPPRESS)
    return parser
