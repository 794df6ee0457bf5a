{% from "map.jinja" import settings, service with context %}
{% import_yaml "mariadb/defaults.yaml" as defaults %}
include:
  - mariadb.install

/etc/mysql/mariadb.conf.d/99-toastdev.cnf:
  file.managed:
    - source: salt://mariadb/files/toastdev.cnf
    - template: jinja
    - context:
        settings: {{ settings('mariadb', defaults) }}

{{ service('mariadb', 'mariadb', ['/etc/mysql/mariadb.conf.d/99-toastdev.cnf'], dropin='mariadb/files/unit.conf') }}
