{# neutron.conf, the same states for server and agents; what is only one's stands under its role. #}
{% from "map.jinja" import settings, roles, connection, transport_url, rabbit, credentials, authtoken, ini with context %}
{% from "sudo/map.jinja" import privsep %}
{% import_yaml "neutron/defaults.yaml" as defaults %}
{% set settings = settings('neutron', defaults) | load_json %}
include:
  - neutron.install

{% load_yaml as config %}
DEFAULT:
  core_plugin: ml2
  service_plugins: {{ settings.service_plugins }}
  transport_url: {{ transport_url() }}
  # An agent that starts before the server asks again after 10 s instead of 60 (emulated nodes: 50).
  rpc_response_timeout: {{ 10 * pillar.patience }}
  # Each call that is lost doubles the next one's; up to 600 s by default.
  rpc_response_max_timeout: {{ 20 * pillar.patience }}
  state_path: /var/lib/neutron
  log_dir: /var/log/neutron
{% if 'control' in roles %}
  auth_strategy: keystone
  router_distributed: {{ pillar.routing == 'dvr' }}
  api_workers: 1
  rpc_workers: 1
  rpc_state_report_workers: 0
  agent_down_time: {{ settings.agent_down_time }}
  dhcp_agents_per_network: {{ settings.dhcp_agents_per_network }}
  allow_automatic_l3agent_failover: false
  notify_nova_on_port_status_changes: true
  notify_nova_on_port_data_changes: true
  global_physnet_mtu: {{ pillar.networks.tunnel.mtu }}
database:
  connection: {{ connection('neutron', 'neutron') }}
nova: {{ credentials('nova') }}
keystone_authtoken: {{ authtoken('neutron') }}
{% endif %}
oslo_messaging_rabbit: {{ rabbit }}
oslo_concurrency:
  lock_path: /var/lib/neutron/tmp
oslo_policy:
  policy_dirs: /etc/neutron/policy.d
agent:
  root_helper: sudo
  report_interval: {{ settings.report_interval }}
{% endload %}
{% do config.update(privsep('/etc/neutron/neutron.conf', ['privsep', 'privsep_conntrack', 'privsep_dhcp_release', 'privsep_link',
    'privsep_namespace', 'privsep_ovs_vsctl']) | load_json) %}
{{ ini('/etc/neutron/neutron.conf', 'neutron', 'neutron', config) }}

# What agents do as root they have their privsep daemons do, but for a few kill and rm. For these rootwrap would cost a process
# more for each agent, which the agent asks a hundred times a second whether it is still there.
/etc/sudoers.d/toastdev-neutron:
  file.managed:
    - contents: 'neutron ALL = (root) NOPASSWD: ALL'
    - mode: "0440"
