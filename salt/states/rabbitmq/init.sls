{% from "map.jinja" import service with context %}
include:
  - rabbitmq.install

/etc/rabbitmq/rabbitmq-env.conf:
  file.managed:
    - contents: |
        # Made by Salt. The name must not depend on the host's, which changes with the environment.
        NODENAME=rabbit@localhost
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"

/etc/rabbitmq/rabbitmq.conf:
  file.managed:
    - contents: |
        # Made by Salt.
        listeners.tcp.default = 5672
        vm_memory_high_watermark.absolute = 512MB
        load_definitions = /etc/rabbitmq/definitions.json

# The user, loaded at every start: no call of rabbitmqctl (a second each) and no password in an argument list.
/etc/rabbitmq/definitions.json:
  file.serialize:
    - serializer: json
    - user: root
    - group: rabbitmq
    - mode: '0640'
    - show_changes: false
    - dataset:
        users:
          - name: openstack
            password: {{ pillar.secrets.rabbitmq | yaml_dquote }}
            tags: [administrator]
        vhosts:
          - name: /
        permissions:
          - user: openstack
            vhost: /
            configure: '.*'
            write: '.*'
            read: '.*'

{{ service('rabbitmq', 'rabbitmq-server',
    ['/etc/rabbitmq/rabbitmq-env.conf', '/etc/rabbitmq/rabbitmq.conf', '/etc/rabbitmq/definitions.json']) }}
