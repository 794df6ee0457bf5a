{# What stands in Keystone and Nova for the services themselves: users, the catalog, flavors. #}
{% from "map.jinja" import settings with context %}
{% import_yaml "openstack/defaults.yaml" as defaults %}
{% set settings = settings('openstack', defaults) | load_json %}
{# What a component serves: name and type in the catalog, port and path. Cinder stands there twice, for clients from before
   `block-storage` was its name. #}
{% set services = {
    'glance': [('glance', 'image', '9292')],
    'placement': [('placement', 'placement', '8778')],
    'nova': [('nova', 'compute', '8774/v2.1')],
    'neutron': [('neutron', 'network', '9696')],
    'cinder': [('cinder', 'block-storage', '8776/v3'), ('cinderv3', 'volumev3', '8776/v3')],
} %}
include:
  - keystone

service-role:
  openstack.role_present:
    - name: service
    - require:
      - service: keystone

service-project:
  openstack.project_present:
    - name: service
    - description: Users of the services
    - require:
      - service: keystone

{% for user, entries in services.items() %}
{% for name, type, rest in entries %}
{{ name }}-in-the-catalog:
  openstack.service_present:
    - name: {{ name }}
    - type: {{ type }}
    - public: http://{{ pillar.api.address }}:{{ rest }}
    - internal: http://{{ pillar.api.name }}:{{ rest }}
    - admin: http://{{ pillar.api.name }}:{{ rest }}
    - require:
      - service: keystone
{% endfor %}

{{ user }}-user:
  openstack.user_present:
    - name: {{ user }}
    - password: {{ pillar.secrets[user] | yaml_dquote }}
    - project: service
    - roles: [admin, service]
    - require:
      - openstack: service-role
      - openstack: service-project
{% endfor %}

{% for name, flavor in settings.flavors.items() %}
{{ name }}-flavor:
  openstack.flavor_present:
    - name: {{ name }}
    - vcpus: {{ flavor.vcpus }}
    - ram: {{ flavor.ram }}
    - disk: {{ flavor.disk }}
    - properties: {{ flavor.get('properties', {}) | json }}
    - require:
      - service: nova-api
      - openstack: nova-in-the-catalog
      - openstack: nova-user
{% endfor %}
