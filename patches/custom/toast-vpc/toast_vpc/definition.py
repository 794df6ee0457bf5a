"""The API as Neutron wants it defined: /v2.0/toast-vpcs."""

from neutron_lib.api.definitions import l3
from neutron_lib.db import constants as sizes

from toast_vpc import cidr

ALIAS = "toast-vpc"
NAME = "TOAST VPC"
DESCRIPTION = "Networks and routers of a project, within one range of addresses"
UPDATED_TIMESTAMP = "2024-01-01T00:00:00-00:00"
IS_SHIM_EXTENSION = False
IS_STANDARD_ATTR_EXTENSION = False

RESOURCE_NAME = "toast_vpc"
COLLECTION_NAME = "toast_vpcs"

RESOURCE_ATTRIBUTE_MAP = {
    COLLECTION_NAME: {
        "id": {
            "allow_post": False,
            "allow_put": False,
            "validate": {"type:uuid": None},
            "is_visible": True,
            "is_filter": True,
            "is_sort_key": True,
            "primary_key": True,
        },
        "project_id": {
            "allow_post": True,
            "allow_put": False,
            "validate": {"type:string": sizes.PROJECT_ID_FIELD_SIZE},
            "required_by_policy": True,
            "is_visible": True,
            "is_filter": True,
            "is_sort_key": True,
        },
        "name": {
            "allow_post": True,
            "allow_put": True,
            "validate": {"type:string": sizes.NAME_FIELD_SIZE},
            "default": "",
            "is_visible": True,
            "is_filter": True,
            "is_sort_key": True,
        },
        "description": {
            "allow_post": True,
            "allow_put": True,
            "validate": {"type:string": sizes.DESCRIPTION_FIELD_SIZE},
            "default": "",
            "is_visible": True,
            "is_filter": True,
        },
        "cidr": {
            "allow_post": True,
            "allow_put": True,
            "validate": {"type:subnet": None},
            "convert_to": cidr.canonical,  # which Neutron does first
            "is_visible": True,
            "is_filter": True,
            "is_sort_key": True,
        },
        "networks": {
            "allow_post": True,
            "allow_put": True,
            "validate": {"type:uuid_list": None},
            "default": [],
            "is_visible": True,
        },
        "routers": {
            "allow_post": True,
            "allow_put": True,
            "validate": {"type:uuid_list": None},
            "default": [],
            "is_visible": True,
        },
    },
}
SUB_RESOURCE_ATTRIBUTE_MAP: dict[str, object] = {}
ACTION_MAP: dict[str, object] = {}
ACTION_STATUS: dict[str, object] = {}
REQUIRED_EXTENSIONS: list[str] = [l3.ALIAS]
OPTIONAL_EXTENSIONS: list[str] = []
