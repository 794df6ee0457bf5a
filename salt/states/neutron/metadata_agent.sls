{% from "map.jinja" import ini with context %}
{% from "neutron/agent.jinja" import agent with context %}

include:
  - neutron.openvswitch_agent

{{ ini("/etc/neutron/metadata_agent.ini", "neutron", "neutron", {
    "DEFAULT": {
        "nova_metadata_host": pillar.api.name,
        "metadata_proxy_shared_secret": pillar.secrets.metadata,
        "metadata_workers": 0,
    },
}, key="metadata_agent_config") }}

{{ agent("neutron-metadata-agent", ["/etc/neutron/metadata_agent.ini"]) }}
