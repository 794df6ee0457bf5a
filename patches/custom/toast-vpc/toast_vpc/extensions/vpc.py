"""The extension, where Neutron looks for it: a class of the file's name in the folder of the service plugin's package."""

from neutron.api.v2 import resource_helper
from neutron_lib.api import extensions

from toast_vpc import definition


class Vpc(extensions.APIExtensionDescriptor):
    """Adds /v2.0/toast-vpcs."""

    api_definition = definition

    @classmethod
    def get_resources(cls):
        """The collection, served by the plugin of that name."""
        names = {definition.COLLECTION_NAME: definition.RESOURCE_NAME}
        return resource_helper.build_resource_info(
            names, definition.RESOURCE_ATTRIBUTE_MAP, definition.ALIAS, translate_name=True, allow_bulk=True
        )
