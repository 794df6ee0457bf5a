{% from "schema.jinja" import schema with context %}
{{ schema('neutron', 'neutron', 'db/migration/alembic_migrations/versions', 'neutron-db-manage --subproject neutron upgrade heads', '/etc/neutron/neutron.conf') }}
