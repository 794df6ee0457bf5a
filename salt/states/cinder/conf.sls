{# cinder.conf, the same states for API, scheduler and volume service. #}
{% from "map.jinja" import settings, roles, node, connection, transport_url, rabbit, credentials, authtoken, ini with context %}
{% from "cinder/backend.jinja" import backend with context %}
{% from "sudo/map.jinja" import privsep %}
{% import_yaml "cinder/defaults.yaml" as defaults %}
{% set settings = settings('cinder', defaults) | load_json %}
include:
  - cinder.install

{% load_yaml as config %}
DEFAULT:
  my_ip: {{ node.addresses.management }}
  transport_url: {{ transport_url() }}
  auth_strategy: keystone
  state_path: /var/lib/cinder
  log_dir: /var/log/cinder
  osapi_volume_workers: 1
  glance_api_servers: http://{{ pillar.api.name }}:9292
  # Until it has heard of a backend the scheduler reports nothing: for 60 s by default, and is taken for dead.
  scheduler_driver_init_wait_time: 2
  report_interval: {{ settings.report_interval }}
  service_down_time: {{ settings.service_down_time }}
database:
  connection: {{ connection('cinder', 'cinder') }}
oslo_messaging_rabbit: {{ rabbit }}
oslo_concurrency:
  lock_path: /var/lib/cinder/tmp
oslo_policy:
  policy_dirs: /etc/cinder/policy.d
nova: {{ credentials('nova') }}
service_user: {{ credentials('cinder') }}
keystone_authtoken: {{ authtoken('cinder') }}
{% endload %}
{% if 'storage' in roles %}
{% do config.DEFAULT.update({'enabled_backends': 'nas'}) %}
{% do config.update({'nas': backend() | load_json}) %}
{% endif %}
{% do config.nova.update({'interface': 'internal'}) %}
{% do config.service_user.update({'send_service_user_token': true}) %}
{% do config.update(privsep('/etc/cinder/cinder.conf', ['cinder_sys_admin', 'privsep_osbrick']) | load_json) %}
{{ ini('/etc/cinder/cinder.conf', 'cinder', 'cinder', config) }}
