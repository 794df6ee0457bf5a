{% from "map.jinja" import service with context %}
include:
  - memcached.install

/etc/memcached.conf:
  file.managed:
    - contents: |
        # Made by Salt.
        -u memcache
        -l 0.0.0.0
        -p 11211
        -m 32
        -t 1

{{ service('memcached', 'memcached', ['/etc/memcached.conf']) }}
