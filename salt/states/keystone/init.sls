{% from "map.jinja" import settings, connection, ini, uwsgi, service, first with context %}
{% from "mariadb/macros.jinja" import databases with context %}
{% import_yaml "keystone/defaults.yaml" as defaults %}
{% set settings = settings('keystone', defaults) | load_json %}
include:
  - keystone.install
  - keystone.schema
  - mariadb

{{ databases('keystone', ['keystone']) }}

{% load_yaml as config %}
DEFAULT:
  log_dir: /var/log/keystone
  log_file: keystone.log
database:
  connection: {{ connection('keystone', 'keystone') }}
cache:
  enabled: true
  backend: dogpile.cache.memcached
  memcache_servers: {{ first('control') }}:11211
identity:
  password_hash_rounds: {{ settings.password_hash_rounds }}
token:
  provider: fernet
  expiration: {{ settings.token_expiration }}
fernet_tokens:
  key_repository: /etc/keystone/fernet-keys
credential:
  key_repository: /etc/keystone/credential-keys
oslo_policy:
  policy_dirs: /etc/keystone/policy.d
{% endload %}
{{ ini('/etc/keystone/keystone.conf', 'keystone', 'keystone', config) }}
{{ uwsgi('keystone', 'keystone', '/usr/bin/keystone-wsgi-public', settings) }}

# The environment's keys, the same on every control node.
{% for repository, secret in [('fernet-keys', 'fernet_key'), ('credential-keys', 'credential_key')] %}
/etc/keystone/{{ repository }}:
  file.directory:
    - user: keystone
    - group: keystone
    - mode: '0700'

{% for number in [0, 1] %}
/etc/keystone/{{ repository }}/{{ number }}:
  file.managed:
    - contents_pillar: secrets:{{ secret }}
    - contents_newline: false
    - user: keystone
    - group: keystone
    - mode: '0600'
    - show_changes: false
    - require:
      - file: /etc/keystone/{{ repository }}
    - require_in:
      - schema: keystone-bootstrap
    - watch_in:
      - service: keystone
{% endfor %}
{% endfor %}

# The first user, by keystone-manage because nobody can authenticate yet. Its password comes by the environment, not
# by an argument that `ps` shows.
keystone-bootstrap:
  schema.filled:
    - name: >-
        keystone-manage bootstrap
        --bootstrap-region-id {{ pillar.region }}
        --bootstrap-public-url http://{{ pillar.api.address }}:5000/v3
        --bootstrap-internal-url http://{{ pillar.api.name }}:5000/v3
        --bootstrap-admin-url http://{{ pillar.api.name }}:5000/v3
    - database: keystone
    - table: local_user
    - runas: keystone
    - env:
        OS_BOOTSTRAP_PASSWORD: {{ pillar.secrets.admin | yaml_dquote }}
    - require:
      - schema: keystone-schema
      - file: /etc/keystone/keystone.conf

{{ service('keystone', 'keystone',
    ['/etc/keystone/keystone.conf', '/etc/keystone/keystone-uwsgi.ini'],
    [{'schema': 'keystone-bootstrap'}]) }}
