{% from "map.jinja" import settings, connection, authtoken, ini, uwsgi, service with context %}
{% from "mariadb/macros.jinja" import databases with context %}
{% import_yaml "placement/defaults.yaml" as defaults %}
{% set settings = settings('placement', defaults) | load_json %}
include:
  - placement.install
  - placement.schema
  - mariadb

{{ databases('placement', ['placement']) }}

{% load_yaml as config %}
placement_database:
  connection: {{ connection('placement', 'placement') }}
api:
  auth_strategy: keystone
oslo_policy:
  policy_dirs: /etc/placement/policy.d
keystone_authtoken: {{ authtoken('placement') }}
{% endload %}
{{ ini('/etc/placement/placement.conf', 'placement', 'placement', config) }}
{{ uwsgi('placement', 'placement-api', '/usr/bin/placement-api', settings,
    ['socket-timeout = 10', 'http-auto-chunked = true', 'http-chunked-input = true', 'http-raw-body = true', 'wsgi-manage-chunked-input = true']) }}

{{ service('placement', 'placement-api',
    ['/etc/placement/placement.conf', '/etc/placement/placement-api-uwsgi.ini'],
    [{'schema': 'placement-schema'}]) }}
