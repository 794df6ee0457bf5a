{# A server for as long as an image is baked, in which the services' migrations make their schemas. No user and no password
   of an environment is in it: those are the highstate's. #}
{% set databases = ['keystone', 'glance', 'placement', 'nova_api', 'nova_cell0', 'nova', 'neutron', 'cinder'] %}
schemas-begun:
  cmd.run:
    - name: |
        set -e
        install -d -o mysql -g mysql /run/mysqld
        setsid mariadbd --user=mysql --skip-networking --innodb-log-file-size=32M --innodb-doublewrite=0 \
          --innodb-flush-log-at-trx-commit=0 --innodb-flush-method=nosync >/var/log/baking.log 2>&1 </dev/null &
        for _ in $(seq 300); do mariadb-admin ping >/dev/null 2>&1 && break; sleep 0.1; done
        mariadb-admin ping || { cat /var/log/baking.log; exit 1; }
        mariadb <<'SQL'
        CREATE USER bake@localhost IDENTIFIED BY 'bake';
{%- for database in databases %}
        CREATE DATABASE {{ database }} CHARACTER SET utf8 COLLATE utf8_general_ci;
        GRANT ALL ON {{ database }}.* TO bake@localhost;
{%- endfor %}
        SQL
    - unless: test -d /var/lib/mysql/keystone
    - require:
      - pkg: mariadb-packages

schemas-baked:
  cmd.run:
    - name: |
        set -e
        mariadb -e 'DROP USER bake@localhost'
        mariadb-admin shutdown
        # It answers before the server has written everything.
        for _ in $(seq 300); do [ -e /run/mysqld/mysqld.pid ] || break; sleep 0.1; done
        rm /var/log/baking.log
    - onlyif: mariadb-admin ping
    - require:
      - cmd: schemas-begun
