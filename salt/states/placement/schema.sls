{% from "schema.jinja" import schema with context %}
{{ schema('placement', 'placement', 'db/sqlalchemy/alembic/versions', 'placement-manage db sync', '/etc/placement/placement.conf',
    {'placement_database': 'placement'}) }}
