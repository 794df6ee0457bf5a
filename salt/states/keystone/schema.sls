{% from "schema.jinja" import schema with context %}
{{ schema('keystone', 'keystone', 'common/sql/migrations/versions', 'keystone-manage db_sync', '/etc/keystone/keystone.conf') }}
