base:
  '*':
    - node
    - ssh
    - evacuator
  # The message bus first: the other nodes start when it opens.
  'G@roles:control':
    - match: compound
    - rabbitmq
    - mariadb
    - memcached
    - keystone
    - glance
    - placement
    - nova.control
    - neutron.control
    - vpc
    - cinder.control
    - openstack
    - client
  # What the other nodes mount, before they do.
  'G@roles:storage':
    - match: compound
    - nas
    - cinder.volume
  'G@roles:network or G@roles:compute':
    - match: compound
    - neutron.agents
  'G@roles:compute':
    - match: compound
    - nova.compute
