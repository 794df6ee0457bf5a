{% from "schema.jinja" import schema, migration with context %}
{% set conf = '/etc/nova/nova.conf' %}
{% set both = {'api_database': 'nova_api', 'database': 'nova'} %}
{{ schema('nova_api', 'nova', 'db/api/migrations/versions', 'nova-manage api_db sync', conf, both) }}

# The cells' addresses are templates, filled in from nova.conf: no password in the database, and none to go stale.
{% set database = '{scheme}://{username}:{password}@{hostname}/%s?{query}' %}
{{ migration('nova-cell0', 'nova', 'nova_cell0', "nova-manage cell_v2 map_cell0 --database_connection '" ~ database % 'nova_cell0' ~ "'",
    conf, both, 'filled', {'database': 'nova_api', 'table': 'cell_mappings'}, 'nova_api-schema') }}

{{ schema('nova', 'nova', 'db/main/migrations/versions', 'nova-manage db sync', conf, both, 'nova-cell0') }}

{{ migration('nova-cell1', 'nova', 'nova',
    "nova-manage cell_v2 create_cell --name cell1 --database_connection '" ~ database % 'nova' ~ "' --transport-url 'rabbit://{username}:{password}@{hostname}:5672/'",
    conf, both, 'filled', {'database': 'nova_api', 'table': 'cell_mappings', 'at_least': 2}, 'nova-schema') }}
