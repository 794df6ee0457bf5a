{% from "map.jinja" import settings, connection, authtoken, ini, uwsgi, service with context %}
{% from "mariadb/macros.jinja" import databases with context %}
{% import_yaml "glance/defaults.yaml" as defaults %}
{% set settings = settings('glance', defaults) | load_json %}
include:
  - glance.install
  - glance.schema
  - mariadb

{{ databases('glance', ['glance']) }}

{% load_yaml as config %}
DEFAULT:
  enabled_backends: file:file
  workers: 0 # in one process: the one that waits for others looks after them a hundred times a second
database:
  connection: {{ connection('glance', 'glance') }}
glance_store:
  default_backend: file
file:
  filesystem_store_datadir: /var/lib/glance/images/
paste_deploy:
  flavor: keystone
oslo_concurrency:
  lock_path: /var/lib/glance/tmp
keystone_authtoken: {{ authtoken('glance') }}
{% endload %}
{{ ini('/etc/glance/glance-api.conf', 'glance', 'glance', config) }}
{{ uwsgi('glance', 'glance-api', '/usr/bin/glance-wsgi-api', settings,
    ['socket-timeout = 10', 'http-auto-chunked = true', 'http-chunked-input = true', 'http-raw-body = true', 'wsgi-manage-chunked-input = true']) }}

{{ service('glance', 'glance-api',
    ['/etc/glance/glance-api.conf', '/etc/glance/glance-api-uwsgi.ini'],
    [{'schema': 'glance-schema'}]) }}
