{% from "schema.jinja" import schema with context %}
{{ schema('cinder', 'cinder', 'db/migrations/versions', 'cinder-manage db sync', '/etc/cinder/cinder.conf') }}
