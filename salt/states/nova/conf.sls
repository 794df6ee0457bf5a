{# nova.conf, the same states for API and compute; what is only one's stands under its role. #}
{% from "map.jinja" import settings, roles, node, first, connection, transport_url, rabbit, credentials, authtoken, ini with context %}
{% from "sudo/map.jinja" import privsep %}
{% import_yaml "nova/defaults.yaml" as defaults %}
{% set settings = settings('nova', defaults) | load_json %}
include:
  - nova.install

{% load_yaml as config %}
DEFAULT:
  my_ip: {{ node.addresses.management }}
  transport_url: {{ transport_url() }}
  # A call that a control node's restart lost is given up after 20 s instead of 60: nova-compute boots its guests no sooner.
  rpc_response_timeout: {{ 20 * pillar.patience }}
  state_path: /var/lib/nova
  log_dir: /var/log/nova
  instances_path: /var/lib/nova/instances
  osapi_compute_workers: 1
  metadata_workers: 1
  cpu_allocation_ratio: {{ settings.cpu_allocation_ratio }}
  ram_allocation_ratio: {{ settings.ram_allocation_ratio }}
  disk_allocation_ratio: {{ settings.disk_allocation_ratio }}
  reserved_host_memory_mb: {{ settings.reserved_host_memory_mb }}
  reserved_host_disk_mb: {{ settings.reserved_host_disk_mb }}
  report_interval: {{ settings.report_interval }}
  service_down_time: {{ settings.service_down_time }}
  periodic_fuzzy_delay: 5
  resume_guests_state_on_host_boot: true
  vif_plugging_timeout: {{ 60 * pillar.patience }}
  vif_plugging_is_fatal: true
{% if 'control' in roles %}
api_database:
  connection: {{ connection('nova', 'nova_api') }}
database:
  connection: {{ connection('nova', 'nova') }}
scheduler:
  workers: 1
  discover_hosts_in_cells_interval: {{ settings.discover_hosts_in_cells_interval }}
conductor:
  workers: 1
{% endif %}
api:
  auth_strategy: keystone
vnc:
  enabled: false
spice:
  enabled: false
glance:
  api_servers: http://{{ pillar.api.name }}:9292
cinder:
  os_region_name: {{ pillar.region }}
  catalog_info: 'volumev3::internalURL'
oslo_messaging_rabbit: {{ rabbit }}
oslo_concurrency:
  lock_path: /var/lib/nova/tmp
oslo_policy:
  policy_dirs: /etc/nova/policy.d
placement: {{ credentials('placement') }}
neutron: {{ credentials('neutron') }}
# Cinder asks for a service's own token before it lets a volume be detached (CVE-2023-2088).
service_user: {{ credentials('nova') }}
upgrade_levels:
  compute: auto
keystone_authtoken: {{ authtoken('nova') }}
{% endload %}
{% do config.neutron.update({
    'valid_interfaces': 'internal',
    'service_metadata_proxy': true,
    'metadata_proxy_shared_secret': pillar.secrets.metadata,
}) %}
{% do config.placement.update({'valid_interfaces': 'internal'}) %}
{% do config.service_user.update({'send_service_user_token': true}) %}
{% do config.update(privsep('/etc/nova/nova.conf', ['nova_sys_admin', 'privsep_osbrick', 'vif_plug_ovs_privileged']) | load_json) %}
{{ ini('/etc/nova/nova.conf', 'nova', 'nova', config) }}
