{% from "map.jinja" import at_boot with context %}
{% from "openvswitch/map.jinja" import openvswitch, datapath with context %}

include:
  - openvswitch.install

# Locked memory is counted in full on every node and buys nothing here.
/etc/default/openvswitch-switch:
  file.managed:
    - contents: OVS_CTL_OPTS="--no-mlockall"
    - mode: "0644"

{{ at_boot("openvswitch-switch.service") }}

openvswitch-switch:
  service.running:
    - enable: true
    - require:
      - file: /etc/systemd/system/multi-user.target.wants/openvswitch-switch.service
    - watch:
      - file: /etc/default/openvswitch-switch

/usr/lib/toastdev/underlay:
  file.managed:
    - source: salt://openvswitch/files/underlay.jinja
    - template: jinja
    - mode: "0755"
    - makedirs: true
    - context:
        settings: {{ openvswitch | json }}
        datapath: {{ datapath }}

/etc/systemd/system/openvswitch-underlay.service:
  file.managed:
    - source: salt://openvswitch/files/underlay.service
    - mode: "0644"

{{ at_boot("openvswitch-underlay.service", "/etc") }}

openvswitch-underlay:
  service.running:
    - enable: true
    - require:
      - file: /etc/systemd/system/multi-user.target.wants/openvswitch-underlay.service
      - service: openvswitch-switch
    - watch:
      - file: /usr/lib/toastdev/underlay
      - file: /etc/systemd/system/openvswitch-underlay.service
