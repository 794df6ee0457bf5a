{# Cinder's API and scheduler. #}
{% from "map.jinja" import settings, uwsgi, service with context %}
{% from "mariadb/macros.jinja" import databases with context %}
{% import_yaml "cinder/defaults.yaml" as defaults %}
{% set settings = settings('cinder', defaults) | load_json %}
include:
  - cinder.install
  - cinder.conf
  - cinder.schema
  - mariadb

{{ databases('cinder', ['cinder']) }}
{{ uwsgi('cinder', 'cinder-api', '/usr/bin/cinder-wsgi', settings,
    ['socket-timeout = 10', 'http-raw-body = true', 'wsgi-manage-chunked-input = true']) }}
{{ service('cinder', 'cinder-api', ['/etc/cinder/cinder.conf', '/etc/cinder/cinder-api-uwsgi.ini'], [{'schema': 'cinder-schema'}]) }}
{{ service('cinder', 'cinder-scheduler', ['/etc/cinder/cinder.conf'], [{'schema': 'cinder-schema'}]) }}
