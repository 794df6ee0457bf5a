{% from "map.jinja" import ini with context %}
{% from "neutron/agent.jinja" import agent with context %}
{% from "openvswitch/map.jinja" import bridges, datapath with context %}

include:
  - node
  - neutron.conf
  - openvswitch
  - sudo

{# An instance's port and a changed rule wait for the agent's next round. Emulated nodes are left Neutron's 2 s. #}
{{ ini("/etc/neutron/plugins/ml2/openvswitch_agent.ini", "neutron", "neutron", {
    "ovs": {
        "datapath_type": datapath,
        "integration_bridge": bridges.integration,
        "bridge_mappings": "external:" ~ bridges.external,
        "local_ip": pillar.node.addresses.tunnel,
    },
    "agent": {
        "polling_interval": 1 if pillar.patience == 1 else 2,
        "tunnel_types": "vxlan",
        "l2_population": true,
        "arp_responder": true,
        "enable_distributed_routing": pillar.routing == "dvr",
    },
    "securitygroup": {"firewall_driver": "openvswitch", "enable_security_group": true},
}, key="openvswitch_agent_config") }}

{{ agent("neutron-openvswitch-agent", ["/etc/neutron/plugins/ml2/openvswitch_agent.ini"]) }}
