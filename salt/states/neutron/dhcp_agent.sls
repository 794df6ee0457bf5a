{% from "map.jinja" import ini with context %}
{% from "neutron/agent.jinja" import agent with context %}
{% from "openvswitch/map.jinja" import bridges, datapath with context %}

include:
  - neutron.openvswitch_agent

{{ ini("/etc/neutron/dhcp_agent.ini", "neutron", "neutron", {
    "DEFAULT": {
        "interface_driver": "openvswitch",
        "dhcp_driver": "neutron.agent.linux.dhcp.Dnsmasq",
        "enable_isolated_metadata": true,
    },
    "ovs": {"datapath_type": datapath, "integration_bridge": bridges.integration},
}, key="dhcp_agent_config") }}

{{ agent("neutron-dhcp-agent", ["/etc/neutron/dhcp_agent.ini"]) }}
