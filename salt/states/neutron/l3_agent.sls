{% from "map.jinja" import ini, roles with context %}
{% from "neutron/agent.jinja" import agent with context %}
{% from "openvswitch/map.jinja" import bridges, datapath with context %}

include:
  - neutron.openvswitch_agent

{{ ini("/etc/neutron/l3_agent.ini", "neutron", "neutron", {
    "DEFAULT": {
        "interface_driver": "openvswitch",
        "agent_mode": "legacy" if pillar.routing == "legacy" else "dvr_snat" if "network" in roles else "dvr",
    },
    "ovs": {"datapath_type": datapath, "integration_bridge": bridges.integration},
}, key="l3_agent_config") }}

{{ agent("neutron-l3-agent", ["/etc/neutron/l3_agent.ini"]) }}
