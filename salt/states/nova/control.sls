{# Nova's API, metadata, scheduler and conductor. #}
{% from "map.jinja" import settings, uwsgi, service, release with context %}
{% from "mariadb/macros.jinja" import databases with context %}
{% import_yaml "nova/defaults.yaml" as defaults %}
{% set settings = settings('nova', defaults) | load_json %}
include:
  - nova.install
  - nova.conf
  - nova.schema
  - mariadb

{{ databases('nova', ['nova_api', 'nova_cell0', 'nova']) }}
{{ uwsgi('nova', 'nova-api', '/usr/bin/nova-api-wsgi', settings) }}
{{ uwsgi('nova', 'nova-api-metadata', '/usr/bin/nova-metadata-wsgi', settings) }}

{% for unit in release.components.nova.units.control %}
{% set ini = ['/etc/nova/' ~ unit ~ '-uwsgi.ini'] if unit.startswith('nova-api') else [] %}
{{ service('nova', unit, ['/etc/nova/nova.conf'] + ini, [{'schema': 'nova-cell1'}]) }}
{% endfor %}
