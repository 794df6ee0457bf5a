include:
  - mariadb.install
  - mariadb.conf

mariadb:
  service.running:
    - enable: true
    - watch:
      - pkg: mariadb-packages
      - file: /etc/mysql/mariadb.conf.d/99-toastdev.cnf
