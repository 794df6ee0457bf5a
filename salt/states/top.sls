base:
  '*':
    - node
  'G@roles:control':
    - match: compound
    # The message bus first: the other nodes start when it opens.
    - rabbitmq
    - mariadb
    - memcached
    - keystone
    - glance
    - placement
    - nova
    - neutron
    - cinder
    - openstack
    - client
