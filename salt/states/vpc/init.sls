{# Our own Neutron plugin (patches/custom/toast-vpc), where pillar.vpc.enabled says so. Otherwise nothing of it is there, whatever
   was before. #}
{% from "map.jinja" import release, settings, ini with context %}
{% import_yaml "vpc/defaults.yaml" as defaults %}
{% import_yaml "neutron/defaults.yaml" as neutron_defaults %}
{% set vpc = settings("vpc", defaults) | load_json %}
{# What Neutron has besides: as neutron.conf says, which this is read after. #}
{% set others = (settings("neutron", neutron_defaults) | load_json).service_plugins %}
{% set others = salt["pillar.get"]("neutron:config:DEFAULT:service_plugins", others) %}
{# Beside Neutron's own code, where every Python that runs it looks. #}
{% set library = salt["file.dirname"](release.components.neutron.code) %}
{% set code, entry_points = library ~ "/toast_vpc", library ~ "/toast_vpc.egg-info" %}
{% set config, policy = "/etc/neutron/server.conf.d/toast-vpc.conf", "/etc/neutron/policy.d/toast-vpc.yaml" %}

include:
  - neutron.control

{% if vpc.enabled %}
{% for folder in [code, entry_points] %}
{{ folder }}:
  file.recurse:
    - source: {{ vpc.source }}/{{ salt["file.basename"](folder) }}
    - clean: true
    - exclude_pat: E@__pycache__
    - require:
      - pkg: neutron-packages
    - watch_in:
      - service: neutron-server
{% endfor %}

# What runs meanwhile does not mind: the migrations only add. When one fails, Neutron goes on as it was.
toast-vpc-schema:
  neutron_plugin.schema:
    - name: toast-vpc
    - database: neutron
    - table: alembic_version_toast_vpc
    - versions: {{ code }}/db/migration/alembic_migrations/versions
    - require:
      - schema: neutron-schema
      - file: /etc/neutron/neutron.conf
      - file: {{ code }}
      - file: {{ entry_points }}
    - require_in:
      - service: neutron-server

{{ ini(config, "vpc", "neutron", {"DEFAULT": {"service_plugins": others ~ ",toast_vpc"}}) }}
    - require:
      - neutron_plugin: toast-vpc-schema
    - watch_in:
      - service: neutron-server

{{ policy }}:
{% if vpc.policy %}
  file.serialize:
    - dataset: {{ vpc.policy | json }}
    - serializer: yaml
    - group: neutron
    - mode: "0640"
{% else %}
  file.absent:
{% endif %}
    - require_in:
      - file: {{ config }}
{% else %}
{{ config }}:
  file.absent:
    - watch_in:
      - service: neutron-server

# When Neutron runs without it.
toast-vpc-schema:
  neutron_plugin.no_schema:
    - database: neutron
    - tables: [toast_vpc_routers, toast_vpc_networks, toast_vpcs, alembic_version_toast_vpc]
    - require:
      - service: neutron-server

{% for path in [code, entry_points, policy] %}
{{ path }}:
  file.absent:
    - require:
      - neutron_plugin: toast-vpc-schema
{% endfor %}
{% endif %}

{# Python's stevedore keeps every package's entry points, and takes a list that was written anew within two minutes for the old one. #}
toast-vpc-entry-points:
  cmd.run:
    - name: grep -rl toast_vpc /var/lib/neutron/.cache/python-entrypoints /root/.cache/python-entrypoints 2>/dev/null | xargs -r rm --
    - onchanges:
      - file: {{ entry_points }}
{%- if vpc.enabled %}
    - require_in:
      - service: neutron-server
{%- endif %}
