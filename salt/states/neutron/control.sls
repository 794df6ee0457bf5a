{# Neutron's server with its ML2 plugin. #}
{% from "map.jinja" import settings, ini, service with context %}
{% from "mariadb/macros.jinja" import databases with context %}
{% import_yaml "neutron/defaults.yaml" as defaults %}
{% set settings = settings('neutron', defaults) | load_json %}
include:
  - neutron.install
  - neutron.conf
  - neutron.schema
  - mariadb

{{ databases('neutron', ['neutron']) }}

{% load_yaml as config %}
ml2:
  type_drivers: flat,vlan,vxlan
  tenant_network_types: {{ pillar.tenant_network }}
  mechanism_drivers: openvswitch,l2population
  extension_drivers: port_security
  # VXLAN over IPv4 takes 50 bytes.
  path_mtu: {{ [settings.mtu + 50, pillar.networks.tunnel.mtu] | min }}
  physical_network_mtus: external:{{ settings.mtu }}
ml2_type_flat:
  flat_networks: external
ml2_type_vlan:
  network_vlan_ranges: external:{{ settings.vlan_range }}
ml2_type_vxlan:
  vni_ranges: '{{ settings.vni_range }}'
securitygroup:
  enable_security_group: true
  enable_ipset: true
{% endload %}
{{ ini('/etc/neutron/plugins/ml2/ml2_conf.ini', 'neutron', 'neutron', config, 'ml2_config') }}

/etc/systemd/system/neutron-server.service:
  file.managed:
    - source: salt://neutron/files/neutron-server.service

{{ service('neutron', 'neutron-server',
    ['/etc/neutron/neutron.conf', '/etc/neutron/plugins/ml2/ml2_conf.ini', '/etc/systemd/system/neutron-server.service'],
    [{'schema': 'neutron-schema'}]) }}
