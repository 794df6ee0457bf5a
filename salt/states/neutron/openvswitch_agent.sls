{% from "map.jinja" import ini with context %}
{% from "neutron/agent.jinja" import agent with context %}
{% from "openvswitch/map.jinja" import bridges, datapath with context %}

include:
  - node
  - neutron.conf
  - openvswitch
  - sudo

{{ ini("/etc/neutron/plugins/ml2/openvswitch_agent.ini", "neutron", "neutron", {
    "ovs": {
        "datapath_type": datapath,
        "integration_bridge": bridges.integration,
        "bridge_mappings": "external:" ~ bridges.external,
        "local_ip": pillar.node.addresses.tunnel,
    },
    "agent": {
        "tunnel_types": "vxlan",
        "l2_population": true,
        "arp_responder": true,
        "enable_distributed_routing": pillar.routing == "dvr",
    },
    "securitygroup": {"firewall_driver": "openvswitch", "enable_security_group": true},
}, key="openvswitch_agent_config") }}

{{ agent("neutron-openvswitch-agent", ["/etc/neutron/plugins/ml2/openvswitch_agent.ini"]) }}
