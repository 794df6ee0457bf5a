{# The agents of a node: with distributed routing every compute routes for its own guests. #}
{% from "map.jinja" import roles with context %}
{% set routes = "network" in roles or pillar.routing == "dvr" %}

include:
  - neutron.openvswitch_agent
{%- if routes %}
  - neutron.l3_agent
  - neutron.metadata_agent
{%- endif %}
{%- if "network" in roles %}
  - neutron.dhcp_agent
{%- endif %}
