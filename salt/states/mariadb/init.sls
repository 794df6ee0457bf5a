{% from "map.jinja" import settings with context %}
{% import_yaml "mariadb/defaults.yaml" as defaults %}
include:
  - mariadb.install

/etc/mysql/mariadb.conf.d/99-toastdev.cnf:
  file.managed:
    - source: salt://mariadb/files/toastdev.cnf
    - template: jinja
    - context:
        settings: {{ settings('mariadb', defaults) }}

mariadb:
  service.running:
    - enable: true
    - watch:
      - pkg: mariadb-packages
      - file: /etc/mysql/mariadb.conf.d/99-toastdev.cnf
