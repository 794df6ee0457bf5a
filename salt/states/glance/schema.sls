{% from "schema.jinja" import schema, migration with context %}
{{ schema('glance', 'glance', 'db/sqlalchemy/alembic_migrations/versions', 'glance-manage db_sync', '/etc/glance/glance-api.conf') }}

# The definitions of metadata that clients offer for images and flavors.
{{ migration('glance-metadefs', 'glance', 'glance', 'glance-manage db_load_metadefs', '/etc/glance/glance-api.conf',
    {'database': 'glance'}, 'filled', {'database': 'glance', 'table': 'metadef_namespaces'}, 'glance-schema') }}
